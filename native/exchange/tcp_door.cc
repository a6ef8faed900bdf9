#if defined(__linux__)
#include "tcp_door.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/random.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace cqil {
namespace {

using Clock = Deadline::Clock;

// How long a visitor may take to prove itself, and how many visitors may be doing so at a time.
constexpr std::chrono::seconds kVisit(10);
constexpr size_t kMostVisitors = 64;

bool send_at_once(int fd, const void* data, size_t n) {
  return send(fd, data, n, MSG_NOSIGNAL | MSG_DONTWAIT) == static_cast<ssize_t>(n);
}

}  // namespace

void tune_socket(int fd) {
  auto set = [&](int level, int name, int value) { setsockopt(fd, level, name, &value, sizeof value); };
  set(IPPROTO_TCP, TCP_NODELAY, 1);
  // Data that nobody acknowledges ends the connection after this many milliseconds; while there is none, probes do.
  set(IPPROTO_TCP, TCP_USER_TIMEOUT, 10000);
  set(SOL_SOCKET, SO_KEEPALIVE, 1);
  set(IPPROTO_TCP, TCP_KEEPIDLE, 2);
  set(IPPROTO_TCP, TCP_KEEPINTVL, 2);
  set(IPPROTO_TCP, TCP_KEEPCNT, 5);
}

void random_bytes(uint8_t (&to)[16]) {
  while (getrandom(to, sizeof to, 0) != sizeof to)
    if (errno != EINTR)
      throw ExchangeFailure{CQIL_EXCHANGE_INTERNAL, -1,
                            "The system gives no random numbers: " + system_text(errno) + "."};
}

void TcpDoor::open(const SocketAddress& at) {
  listener_.reset(socket(at.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const int one = 1;
  // Connections of an exchange that has ended do not keep its port; a socket that listens does.
  if (listener_) setsockopt(listener_.get(), SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (!listener_ || bind(listener_.get(), at.get(), at.length) != 0 || listen(listener_.get(), 64) != 0) {
    const int error = errno;
    listener_.reset();
    throw ExchangeFailure{
        error == EMFILE || error == ENFILE ? CQIL_EXCHANGE_OUT_OF_MEMORY : CQIL_EXCHANGE_UNAVAILABLE, -1,
        "Rank " + std::to_string(rank_) + " cannot listen on " + text_of(at) + ": " + system_text(error) + "."};
  }
}

SocketAddress TcpDoor::address() const { return bound_address(listener_.get()); }

void TcpDoor::close() {
  for (const Visitor& visitor : visitors_) refused_.push_back(visitor.from);
  visitors_.clear();
  listener_.reset();
}

void TcpDoor::serve(TcpPeers& peers, Place (&places)[CQIL_MAX_RANKS], const Deadline& deadline, int about) {
  std::vector<pollfd> fds = {{listener_.get(), POLLIN, 0}};
  int64_t moment_ns = -1;
  for (const Visitor& visitor : visitors_) {
    fds.push_back({visitor.fd.get(), POLLIN, 0});
    moment_ns = INT64_C(200) * 1000 * 1000;
  }
  peers.wait(fds, deadline, about, moment_ns);
  const auto now = Clock::now();
  size_t i = 1;
  for (auto it = visitors_.begin(); it != visitors_.end(); i++) {
    Step step = fds[i].revents != 0 ? hear(*it, peers, places) : Step::kWaits;
    if (step == Step::kWaits && now >= it->until) step = Step::kStranger;
    if (step == Step::kStranger) refused_.push_back(it->from);
    it = step == Step::kWaits ? std::next(it) : visitors_.erase(it);
  }
  if (fds[0].revents != 0) let_in();
}

void TcpDoor::let_in() {
  for (;;) {
    SocketAddress from;
    from.length = sizeof from.storage;
    Descriptor fd(accept4(listener_.get(), reinterpret_cast<sockaddr*>(&from.storage), &from.length,
                          SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!fd && (errno == EINTR || errno == ECONNABORTED)) continue;
    if (!fd && (errno == EMFILE || errno == ENFILE)) fail_without_descriptor();
    if (!fd) return;
    tune_socket(fd.get());
    if (visitors_.size() == kMostVisitors) {
      refused_.push_back(visitors_.front().from);
      visitors_.pop_front();
    }
    Visitor visitor = {};
    visitor.fd = std::move(fd);
    visitor.from = text_of(from);
    visitor.until = Clock::now() + kVisit;
    visitors_.push_back(std::move(visitor));
  }
}

TcpDoor::Step TcpDoor::hear(Visitor& visitor, TcpPeers& peers, Place (&places)[CQIL_MAX_RANKS]) {
  auto* to =
      visitor.challenged ? reinterpret_cast<uint8_t*>(&visitor.answer) : reinterpret_cast<uint8_t*>(&visitor.hello);
  const size_t size = visitor.challenged ? sizeof visitor.answer : sizeof visitor.hello;
  const ssize_t n = recv(visitor.fd.get(), to + visitor.taken, size - visitor.taken, MSG_DONTWAIT);
  if (n < 0 && would_block(errno)) return Step::kWaits;
  if (n <= 0) return Step::kStranger;
  visitor.taken += static_cast<size_t>(n);
  // A visitor that does not begin as a rank does is not listened to any longer.
  if (!visitor.challenged && visitor.taken >= sizeof kHelloMagic && visitor.hello.magic != kHelloMagic)
    return Step::kStranger;
  if (visitor.taken < size) return Step::kWaits;
  visitor.taken = 0;
  return visitor.challenged ? judge(visitor, peers, places) : challenge(visitor);
}

TcpDoor::Step TcpDoor::challenge(Visitor& visitor) {
  random_bytes(visitor.challenge.nonce);
  visitor.challenge.proof = listeners_proof(token_, visitor.hello, visitor.challenge, rank_);
  visitor.challenged = true;
  return send_at_once(visitor.fd.get(), &visitor.challenge, sizeof visitor.challenge) ? Step::kWaits : Step::kStranger;
}

TcpDoor::Step TcpDoor::judge(Visitor& visitor, TcpPeers& peers, Place (&places)[CQIL_MAX_RANKS]) {
  const Hello& hello = visitor.hello;
  const Hash expected = connectors_proof(token_, hello, visitor.challenge, rank_, visitor.answer.place);
  if (!same_hash(visitor.answer.proof, expected)) return Step::kStranger;
  Welcome welcome = {CQIL_EXCHANGE_INVALID_ARGUMENT, ""};
  const std::string who = "Rank " + std::to_string(hello.rank);
  if (hello.abi != CQIL_EXCHANGE_ABI || hello.channel >= kChannels) {
    welcome.status = CQIL_EXCHANGE_UNAVAILABLE;
    copy_text(welcome.text, sizeof welcome.text,
              who + " and rank " + std::to_string(rank_) + " are of different versions of cqil.");
  } else if (hello.size != size_ || hello.rank <= rank_ || hello.rank >= size_) {
    copy_text(welcome.text, sizeof welcome.text,
              who + " expects " + std::to_string(hello.size) + " ranks, rank " + std::to_string(rank_) + " expects " +
                  std::to_string(size_) + ".");
  } else if (peers.has(hello.rank, static_cast<Channel>(hello.channel))) {
    copy_text(welcome.text, sizeof welcome.text, who + " has come already.");
  } else {
    welcome.status = CQIL_EXCHANGE_OK;
  }
  if (!send_at_once(visitor.fd.get(), &welcome, sizeof welcome)) return Step::kStranger;
  if (welcome.status != CQIL_EXCHANGE_OK) return Step::kDone;
  if (hello.channel == kData) {
    places[hello.rank] = visitor.answer.place;
    peers.set_name(hello.rank, visitor.from);
  }
  peers.add(hello.rank, static_cast<Channel>(hello.channel), std::move(visitor.fd));
  return Step::kDone;
}

}  // namespace cqil
#endif
