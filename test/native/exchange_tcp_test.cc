// The exchange between hosts, on the loopback interface: what every exchange must do, killed and stopped processes,
// strangers, wrong secrets and addresses, and that nothing stays.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "exchange/tcp_messages.h"
#include "exchange_process.h"

namespace {

const cqil_exchange* const kTcp = cqil::tcp_exchange();
const uint8_t kToken[16] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
const uint8_t kOther[16] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 17};

// An end that a test makes itself, closed with it.
struct End {
  ~End() { kTcp->close(end); }
  Came create(int rank, int size, const std::string& address, const uint8_t* token = kToken,
              const char* local = nullptr) {
    cqil_exchange_options options = {};
    options.rank = rank, options.size = size, options.address = address.c_str();
    options.token = token, options.local = local;
    cqil_exchange_failure failure = {-1, ""};
    const cqil_exchange_status status = kTcp->create(&options, &end, &failure);
    return {status, failure.rank, failure.text};
  }
  Rank rank() const { return {kTcp, end}; }
  std::string address() const { return rank().state().address; }
  cqil_exchange_end* end = nullptr;
};

// A connection that belongs to no end.
struct Visitor {
  explicit Visitor(const std::string& address) {
    sockaddr_in at = {};
    at.sin_family = AF_INET;
    at.sin_port = htons(static_cast<uint16_t>(std::atoi(address.c_str() + address.rfind(':') + 1)));
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    const timeval patience = {60, 0};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    connected = connect(fd, reinterpret_cast<const sockaddr*>(&at), sizeof at) == 0;
  }
  ~Visitor() { close(fd); }
  Visitor(const Visitor&) = delete;
  void say(const void* data, size_t n) const { (void)!send(fd, data, n, MSG_NOSIGNAL); }
  bool hear(void* data, size_t n) const { return recv(fd, data, n, MSG_WAITALL) == static_cast<ssize_t>(n); }
  // Proves to be a rank, with a token. Returns what it is told.
  cqil::Welcome prove(const uint8_t (&token)[16], int rank, int size, uint32_t channel,
                      uint32_t abi = CQIL_EXCHANGE_ABI) {
    cqil::Welcome welcome = {99, "nothing was said"};
    cqil::Key key;
    std::copy_n(token, 16, key.begin());
    const cqil::Hello hello = {cqil::kHelloMagic, abi, rank, size, channel, {}};
    say(&hello, sizeof hello);
    cqil::Challenge challenge;
    if (!hear(&challenge, sizeof challenge)) return welcome;
    cqil::Answer answer = {};
    answer.proof = cqil::connectors_proof(key, hello, challenge, 0, answer.place);
    say(&answer, sizeof answer);
    hear(&welcome, sizeof welcome);
    return welcome;
  }
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  bool connected;
};

// The result of SipHash-2-4 with 128 bits for the key 00 01 ... 0f and the message 00 01 ..., as OpenSSL computes it.
void test_siphash() {
  cqil::Key key;
  uint8_t message[63];
  for (uint8_t i = 0; i < 16; i++) key[i] = i;
  for (uint8_t i = 0; i < 63; i++) message[i] = i;
  const std::pair<size_t, const char*> known[] = {{0, "a3817f04ba25a8e66df67214c7550293"},
                                                  {1, "da87c1d86b99af44347659119b22fc45"},
                                                  {8, "3b62a9ba6258f5610f83e264f31497b4"},
                                                  {15, "5493e99933b0a8117e08ec0f97cfc3d9"},
                                                  {63, "5150d1772f50834a503e069a973fbd7c"}};
  for (const auto& [bytes, expected] : known) {
    std::string text;
    for (const uint8_t byte : cqil::siphash(key, message, bytes)) {
      char digits[3];
      std::snprintf(digits, sizeof digits, "%02x", byte);
      text += digits;
    }
    CHECK(text == expected, "the hash of " + std::to_string(bytes) + " bytes");
  }
}

void test_addresses() {
  for (const char* wrong : {"127.0.0.1", "127.0.0.1:", ":80", "127.0.0.1:65536", "127.0.0.1:8x", "::1:80", "[::1]",
                            "[::1:80", "127.0.0.1:-1", "127.0.0.1: 80", "0.0.0.0:0", "[::]:0"}) {
    const Came came = End().create(0, 2, wrong);
    CHECK(came.status == CQIL_EXCHANGE_INVALID_ARGUMENT, std::string(wrong) + ": " + told(came));
  }
  for (const char* nowhere : {"203.0.113.1:0", "no-such-host.invalid:0"})
    CHECK(End().create(0, 2, nowhere).status == CQIL_EXCHANGE_UNAVAILABLE, std::string("listening on ") + nowhere);
  const uint8_t zeros[16] = {};
  CHECK(End().create(0, 2, "127.0.0.1:0", nullptr).status == CQIL_EXCHANGE_INVALID_ARGUMENT, "no token");
  CHECK(End().create(0, 2, "127.0.0.1:0", zeros).status == CQIL_EXCHANGE_INVALID_ARGUMENT, "a token of zeros");

  End leader, second;
  CHECK(leader.create(0, 2, "lo:0").ok(), "an interface by its name");
  CHECK(leader.address().rfind("127.0.0.1:", 0) == 0, "its address: " + leader.address());
  const Came taken = second.create(0, 2, leader.address());
  CHECK(taken.status == CQIL_EXCHANGE_UNAVAILABLE && taken.text.find(leader.address()) != std::string::npos,
        "a port in use: " + told(taken));
  const Came nobody = End().create(1, 2, "no-such-host.invalid:80");
  CHECK(nobody.status == CQIL_EXCHANGE_UNAVAILABLE, "a rank 0 that cannot be found");
}

// A rank 0 that waits for others on a thread of its own.
struct Waiting {
  explicit Waiting(int size) {
    CHECK(leader.create(0, size, "127.0.0.1:0").ok(), "a leader");
    address = leader.address();
    thread = std::thread([this] { met = leader.rank().meet(); });
  }
  void await_strangers(int64_t count) {
    const int64_t give_up = now_ns() + kGenerous;
    while (leader.rank().state().strangers < count && now_ns() < give_up) nap(1000);
    CHECK(leader.rank().state().strangers == count, "strangers are counted");
  }
  End leader;
  std::string address;
  Came met = {CQIL_EXCHANGE_INTERNAL, -1, "it still waits"};
  std::thread thread;
};

// Whoever says nothing, or something else, or has another secret is refused, and ranks come meanwhile.
void test_strangers() {
  Waiting waiting(2);
  const Visitor silent(waiting.address);
  CHECK(silent.connected, "a stranger that says nothing");
  waiting.await_strangers(0);
  int64_t refused = 0;
  for (const char* text : {"GET / HTTP/1.1\r\n\r\n", "12345678"}) {
    Visitor stranger(waiting.address);
    stranger.say(text, std::strlen(text));
    uint8_t byte;
    CHECK(!stranger.hear(&byte, 1), "no answer to what no rank says");
    waiting.await_strangers(++refused);
  }
  CHECK(Visitor(waiting.address).prove(kOther, 1, 2, cqil::kData).status == 99, "a proof with another secret");
  waiting.await_strangers(++refused);
  {
    End wrong;
    CHECK(wrong.create(1, 2, waiting.address, kOther).ok(), "a rank with another secret");
    const Came came = wrong.rank().meet();
    CHECK(came.status == CQIL_EXCHANGE_UNAVAILABLE && came.rank == 0 &&
              came.text.find("does not prove to be rank 0") != std::string::npos,
          told(came));
  }
  waiting.await_strangers(++refused);
  CHECK(std::string(waiting.leader.rank().state().stranger).rfind("127.0.0.1:", 0) == 0, "where the last came from");
  // More silent visitors than are kept: those that have waited longest are refused.
  std::vector<std::unique_ptr<Visitor>> crowd;
  for (int i = 0; i < 70; i++) crowd.push_back(std::make_unique<Visitor>(waiting.address));
  End follower;
  CHECK(follower.create(1, 2, waiting.address).ok(), "a rank comes");
  const Came came = follower.rank().meet();
  waiting.thread.join();
  CHECK(came.ok() && waiting.met.ok(), "and is let in: " + told(came) + ", " + told(waiting.met));
  CHECK(waiting.leader.rank().state().strangers == refused + 71, "the crowd is counted");
  CHECK(!Visitor(waiting.address).connected, "nobody can come once all have met");
  std::thread other([&] {
    all_right({[&] {
                Rank its = follower.rank();
                return gather_bytes(its, 0, 5, false);
              }()},
              "1");
  });
  Rank its = waiting.leader.rank();
  const std::string wrong = gather_bytes(its, 0, 5, false);
  other.join();
  CHECK(wrong == "", "the exchange works");
}

// Ranks that have the secret, and are not expected.
void test_unexpected() {
  Waiting waiting(3);
  const Came other_size = [&] {
    End end;
    const Came created = end.create(1, 4, waiting.address);
    return created.ok() ? end.rank().meet() : created;
  }();
  CHECK(other_size.status == CQIL_EXCHANGE_INVALID_ARGUMENT &&
            other_size.text == "Rank 1 expects 4 ranks, rank 0 expects 3.",
        told(other_size));
  const cqil::Welcome newer = Visitor(waiting.address).prove(kToken, 1, 3, cqil::kData, CQIL_EXCHANGE_ABI + 1);
  CHECK(newer.status == CQIL_EXCHANGE_UNAVAILABLE, "another version");
  Visitor first(waiting.address), again(waiting.address), leader(waiting.address);
  CHECK(first.prove(kToken, 1, 3, cqil::kData).status == CQIL_EXCHANGE_OK, "rank 1");
  CHECK(std::string(again.prove(kToken, 1, 3, cqil::kData).text) == "Rank 1 has come already.", "a second rank 1");
  CHECK(leader.prove(kToken, 0, 3, cqil::kData).status == CQIL_EXCHANGE_INVALID_ARGUMENT, "a second rank 0");
  waiting.leader.rank().abort(-1, "Enough.");
  waiting.thread.join();
  CHECK(waiting.met.status == CQIL_EXCHANGE_ABORTED && waiting.met.text == "Enough.", "an abort while ranks meet");
}

// A rank 1 that proves itself and then says what no rank says.
void test_hostile_rank() {
  struct {
    const char* what;
    cqil::Head head;
    const char* text;
  } cases[] = {
      {"an oversized length",
       {cqil::kHeadMagic, 1, 1, 0, INT64_C(1) << 60},
       "Rank 1 gathers 1152921504606846976 bytes where rank 0 gathers 16 bytes."},
      {"a negative length", {cqil::kHeadMagic, 1, 1, 0, -1}, "sent what no rank sends."},
      {"another turn", {cqil::kHeadMagic, 1, 7, 0, 16}, "sent what no rank sends."},
      {"another beginning", {0, 1, 1, 0, 16}, "sent what no rank sends."},
  };
  for (const auto& its : cases) {
    Waiting waiting(2);
    Visitor data(waiting.address), control(waiting.address);
    CHECK(data.prove(kToken, 1, 2, cqil::kData).status == CQIL_EXCHANGE_OK &&
              control.prove(kToken, 1, 2, cqil::kControl).status == CQIL_EXCHANGE_OK,
          "a rank that proves itself");
    waiting.thread.join();
    data.say(&its.head, sizeof its.head);
    uint8_t mine[16] = {}, all[32];
    const Came came = waiting.leader.rank().gather(mine, all, 16);
    CHECK(came.status == CQIL_EXCHANGE_OUT_OF_STEP && came.rank == 1 && came.text.find(its.text) != std::string::npos,
          std::string(its.what) + ": " + told(came));
  }
  Waiting waiting(2);
  Visitor data(waiting.address), control(waiting.address);
  data.prove(kToken, 1, 2, cqil::kData), control.prove(kToken, 1, 2, cqil::kControl);
  waiting.thread.join();
  const cqil::Word word = {cqil::kWordMagic, 77, 1, "what"};
  control.say(&word, sizeof word);
  uint8_t mine = 0, all[2];
  CHECK(waiting.leader.rank().gather(&mine, all, 1).status == CQIL_EXCHANGE_OUT_OF_STEP, "a word of no meaning");
}

// A rank that finds nobody, and one that nobody finds.
void test_nobody() {
  std::string address;
  {
    End gone;
    CHECK(gone.create(0, 2, "127.0.0.1:0").ok(), "a leader");
    address = gone.address();
  }
  End follower, leader;
  CHECK(follower.create(1, 2, address).ok(), "a rank 1");
  const Came came = follower.rank().meet(200 * kMillisecond);
  CHECK(came.status == CQIL_EXCHANGE_RANK_LOST && came.rank == 0 && came.text.find(address) != std::string::npos,
        told(came));
  CHECK(leader.create(0, 2, "127.0.0.1:0").ok(), "a rank 0");
  const Came alone = leader.rank().meet(200 * kMillisecond);
  CHECK(alone.status == CQIL_EXCHANGE_RANK_LOST && alone.rank == 1, told(alone));
}

// Whether this machine has IPv6 on its loopback interface.
bool has_ipv6() { return End().create(0, 1, "[::1]:0").ok(); }

}  // namespace

int main() {
  test_siphash();
  test_addresses();
  test_strangers();
  test_unexpected();
  test_hostile_rank();
  test_nobody();
  CHECK(cqil::find_exchange("tcp") == kTcp, "by name");
  Made made = {kTcp, "127.0.0.1:0", kToken};
  test_processes(made, "tcp");
  auto processes = [&](int size, const Body& body) { return run_processes(made, size, body); };
  // As threads, too, so that ThreadSanitizer sees aborts from other threads.
  auto threads = [&](int size, const Body& body) { return run_threads(made, size, body); };
  const int turns = turns_wanted(100000);
  test_exchange(processes, turns);
  test_sums(threads, 3, turns / 100);
  for (const int lost : {-1, 0}) test_abort(threads, 3, lost == 0, lost);
  made.leaders_address = "[::1]:0";
  if (has_ipv6()) test_sizes(processes, 3);
  else std::printf("skipped: IPv6: the loopback interface has no address of it\n");
  return check::report("exchange_tcp");
}
