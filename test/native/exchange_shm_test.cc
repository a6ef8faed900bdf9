// The exchange between processes of one host: what every exchange must do, killed and stopped processes, what an
// address may name, and that nothing stays.
#include <fcntl.h>
#include <sys/stat.h>

#include "exchange/process_watch.h"
#include "exchange_process.h"

namespace {

const cqil_exchange* const kShm = cqil::shm_exchange();

// Makes rank 1 at this address and closes it again. Returns the outcome.
Came follow(const std::string& address, int size = 2) {
  cqil_exchange_options options = {};
  options.rank = 1, options.size = size, options.address = address.c_str();
  cqil_exchange_end* end = nullptr;
  cqil_exchange_failure failure = {-1, ""};
  const cqil_exchange_status status = kShm->create(&options, &end, &failure);
  kShm->close(end);
  return {status, failure.rank, failure.text};
}

// An address that names something else is refused, and what it names stays as it is.
void test_addresses() {
  const std::string own = "/proc/" + std::to_string(getpid()) + "/fd/";
  char file[] = "/tmp/cqil-exchange-XXXXXX";
  const int fd = mkstemp(file);
  unlink(file);
  for (const std::string& address :
       {std::string(file), std::string("/proc/self/fd/0"), own, own + "1x", own + "-1", std::string("fd:"),
        std::string("fd:1 "), std::string(), std::string("/proc/99999999999/fd/1")}) {
    const Came came = follow(address);
    CHECK(came.status == CQIL_EXCHANGE_INVALID_ARGUMENT && came.rank == 0,
          "the address " + address + ": " + told(came));
  }
  for (const std::string& address : {own + std::to_string(fd), own + "9999", "fd:" + std::to_string(fd),
                                     std::string("fd:9999"), std::string("/proc/2147483647/fd/3")}) {
    const Came came = follow(address);
    CHECK(came.status == CQIL_EXCHANGE_UNAVAILABLE && came.rank == 0, "the address " + address + ": " + told(came));
  }
  CHECK(fcntl(fd, F_GETFD) >= 0, "a descriptor that is no exchange's stays open");
  close(fd);
}

// What rank 0 shares: nobody else's to open, of a size that stays, and gone once all have met.
void test_memory() {
  cqil_exchange_options options = {};
  options.size = 2;
  cqil_exchange_end *leader = nullptr, *follower = nullptr;
  CHECK(kShm->create(&options, &leader, nullptr) == CQIL_EXCHANGE_OK, "a leader");
  const std::string address = Rank(kShm, leader).state().address;
  struct stat its = {};
  CHECK(stat(address.c_str(), &its) == 0 && (its.st_mode & 07777) == 0600, "only its user may open what it shares");
  const int fd = open(address.c_str(), O_RDWR | O_CLOEXEC);
  CHECK(ftruncate(fd, 0) == -1, "nobody can shorten it");
  CHECK(follow(address, 3).status == CQIL_EXCHANGE_INVALID_ARGUMENT, "another number of ranks");
  // A process that was started with this descriptor knows it by this address.
  const std::string inherited = "fd:" + std::to_string(fd);
  options.rank = 1, options.address = inherited.c_str();
  CHECK(kShm->create(&options, &follower, nullptr) == CQIL_EXCHANGE_OK, "a follower that inherited a descriptor");
  CHECK(fcntl(fd, F_GETFD) == -1, "an inherited descriptor is closed");
  CHECK(follow(address).text == "Rank 1 has come already.", "a second rank 1");
  CHECK(Rank(kShm, follower).meet().ok() && Rank(kShm, leader).meet().ok(), "both have come");
  CHECK(follow(address).status == CQIL_EXCHANGE_UNAVAILABLE, "nobody comes after they have met");
  kShm->close(leader);
  kShm->close(follower);
  options.slot_bytes = 1, options.rank = 0;
  CHECK(kShm->create(&options, &leader, nullptr) == CQIL_EXCHANGE_INVALID_ARGUMENT, "a slot of one byte");
}

// A process is watched until it ends, also while nobody has waited for it, by a pidfd and by /proc.
void test_watch() {
  for (const bool by_proc : {false, true}) {
    int ends[2];
    if (pipe(ends) != 0) return CHECK(false, "a pipe");
    const pid_t pid = fork();
    if (pid == 0) {
      char byte;
      close(ends[1]);
      _exit(read(ends[0], &byte, 1) == 0 ? 0 : 1);
    }
    close(ends[0]);
    const cqil::ProcessWatch watch(pid, by_proc);
    CHECK(!watch.ended(), "a process that waits");
    close(ends[1]);
    siginfo_t its;
    CHECK(waitid(P_PID, static_cast<id_t>(pid), &its, WEXITED | WNOWAIT) == 0, "it ends");
    CHECK(watch.ended(), by_proc ? "a zombie, by /proc" : "a zombie, by its pidfd");
    CHECK(cqil::ProcessWatch(pid, true).ended(), "it had ended before it was watched");
    waitpid(pid, nullptr, 0);
    CHECK(watch.ended() && cqil::ProcessWatch(pid, by_proc).ended(), "nothing is left of it");
  }
}

}  // namespace

int main() {
  test_addresses();
  test_memory();
  test_watch();
  CHECK(cqil::find_exchange("shm") == kShm, "by name");
  Made made = {kShm};
  test_processes(made, "shm");
  made.slot_bytes = 4096;
  test_exchange([&](int size, const Body& body) { return run_processes(made, size, body); }, turns_wanted(100000));
  return check::report("exchange_shm");
}
