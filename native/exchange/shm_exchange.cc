// Ranks that are processes of one host: turns and slots in memory that they share.
#include "exchanges.h"
#include "slots.h"

#if defined(__linux__)
#include <fcntl.h>
#include <linux/futex.h>
#include <linux/memfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "descriptor.h"
#include "process_watch.h"

namespace cqil {
namespace {

[[noreturn]] void fail(const char* what) {
  const int error = errno;
  const bool short_of = error == ENOMEM || error == ENOSPC || error == EMFILE || error == ENFILE;
  const bool unknown = error == ENOSYS || error == EPERM;
  throw ExchangeFailure{short_of  ? CQIL_EXCHANGE_OUT_OF_MEMORY
                        : unknown ? CQIL_EXCHANGE_UNAVAILABLE
                                  : CQIL_EXCHANGE_INTERNAL,
                        -1, std::string(what) + ": " + std::strerror(error) + "."};
}

// Nobody can shorten it, so no access to the memory can fail.
constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif

Descriptor make_memory(int64_t bytes) {
  const unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
  Descriptor fd(memfd_create("cqil-exchange", flags | MFD_NOEXEC_SEAL));
  if (!fd && errno == EINVAL) fd.reset(memfd_create("cqil-exchange", flags));  // a kernel that knows no such flag
  if (!fd) fail("Shared memory cannot be had");
  if (fchmod(fd.get(), 0600) != 0) fail("Shared memory cannot be kept from others");
  // All of it is taken now: a page that could not be had later would end the process.
  if (fallocate(fd.get(), 0, 0, bytes) != 0) fail("Shared memory cannot be had");
  if (fcntl(fd.get(), F_ADD_SEALS, kSeals) != 0) fail("Shared memory cannot be sealed");
  return fd;
}

// Reads the number that a text begins with and that `end` follows; moves the text past both.
bool read_number(const char*& text, const char* end, int& value) {
  if (*text < '0' || *text > '9') return false;
  char* after = nullptr;
  const long read = std::strtol(text, &after, 10);
  if (read > INT_MAX || std::strncmp(after, end, std::strlen(end)) != 0) return false;
  value = static_cast<int>(read);
  text = after + std::strlen(end);
  return true;
}

bool skip(const char*& text, const char* what) {
  const size_t n = std::strlen(what);
  if (std::strncmp(text, what, n) != 0) return false;
  text += n;
  return true;
}

// Opens what an address of rank 0 names. inherited: the number of the descriptor, where the address names an inherited
// one.
Descriptor find_memory(const char* address, int& inherited) {
  int pid = 0, number = 0;
  const char* rest = address;
  if (skip(rest, "fd:") && read_number(rest, "", number) && !*rest) {
    Descriptor copy(fcntl(number, F_DUPFD_CLOEXEC, 3));
    if (!copy)
      throw ExchangeFailure{CQIL_EXCHANGE_UNAVAILABLE, 0,
                            std::string("No descriptor was inherited as ") + address + "."};
    inherited = number;
    return copy;
  }
  rest = address;
  if (!skip(rest, "/proc/") || !read_number(rest, "/fd/", pid) || !read_number(rest, "", number) || *rest)
    throw ExchangeFailure{
        CQIL_EXCHANGE_INVALID_ARGUMENT, 0,
        std::string("Memory of rank 0 is at /proc/PID/fd/N, or inherited as fd:N, found ") + address + "."};
  Descriptor opened(open(address, O_RDWR | O_CLOEXEC | O_NONBLOCK));
  if (!opened)
    throw ExchangeFailure{
        CQIL_EXCHANGE_UNAVAILABLE, 0,
        std::string("What rank 0 shares cannot be opened at ") + address + ": " + std::strerror(errno) + "."};
  return opened;
}

uint64_t own_pid_namespace() {
  struct stat its = {};
  return stat("/proc/self/ns/pid", &its) == 0 ? its.st_ino : 0;
}

class ShmEnd final : public SlotsEnd {
 public:
  explicit ShmEnd(const cqil_exchange_options& options) : SlotsEnd(options.rank, options.size) {
    if (rank == 0) {
      const int64_t slot_bytes = checked_slot_bytes(options.slot_bytes);
      memory_ = make_memory(table_bytes(size, slot_bytes));
      make_table(map(table_bytes(size, slot_bytes)), size, slot_bytes, own_pid_namespace());
      address_ = "/proc/" + std::to_string(getpid()) + "/fd/" + std::to_string(memory_.get());
    } else {
      int inherited = -1;
      address_ = options.address;
      memory_ = find_memory(options.address, inherited);
      map_found();
      if (inherited >= 0) close(inherited);
      memory_.reset();  // rank 0 keeps its own for those who have not come
    }
    sit(mapped_.table, getpid());
  }
  ~ShmEnd() override { leave(); }
  void describe(cqil_exchange_state& state) noexcept override { copy_text(state.address, address_); }

 protected:
  void sleep(std::atomic<uint32_t>& bell, uint32_t seen, std::chrono::nanoseconds at_most) override {
    const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(at_most);
    const timespec time = {seconds.count(), static_cast<long>((at_most - seconds).count())};
    syscall(SYS_futex, &bell, FUTEX_WAIT, seen, &time, nullptr, 0);
  }
  void wake(std::atomic<uint32_t>& bell) noexcept override {
    syscall(SYS_futex, &bell, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
  }
  void all_came() override {
    memory_.reset();
    for (int r = 0; r < size; r++)
      if (r != rank) watches_[r] = ProcessWatch(pid_of(r));
  }
  bool ended(int of) override { return watches_[of].ended(); }
  std::string name(int of) const override {
    const int32_t pid = pid_of(of);
    return "Rank " + std::to_string(of) + (pid ? " (pid " + std::to_string(pid) + ")" : "");
  }

 private:
  struct Mapped {
    ~Mapped() {
      if (table) munmap(table, static_cast<size_t>(bytes));
    }
    Table* table = nullptr;
    int64_t bytes = 0;
  };

  int32_t pid_of(int of) const { return seat(of).pid.load(std::memory_order_relaxed); }

  Table* map(int64_t bytes) {
    void* memory =
        mmap(nullptr, static_cast<size_t>(bytes), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, memory_.get(), 0);
    if (memory == MAP_FAILED) fail("Shared memory cannot be mapped");
    mapped_.bytes = bytes;
    return mapped_.table = static_cast<Table*>(memory);
  }

  // Maps the memory that was found, if it is what rank 0 shares.
  void map_found() {
    struct stat its = {};
    const int seals = fcntl(memory_.get(), F_GET_SEALS);
    const bool sealed = seals >= 0 && (seals & kSeals) == kSeals && fstat(memory_.get(), &its) == 0;
    if (!sealed || its.st_uid != geteuid() || its.st_size < static_cast<int64_t>(sizeof(Table)))
      throw ExchangeFailure{CQIL_EXCHANGE_UNAVAILABLE, 0, "What is at " + address_ + " is no memory of a rank 0."};
    const Table* table = map(its.st_size);
    check_table(table, its.st_size, rank, size);
    const uint64_t own = own_pid_namespace();
    if (table->pid_namespace != 0 && own != 0 && table->pid_namespace != own)
      throw ExchangeFailure{CQIL_EXCHANGE_UNAVAILABLE, 0,
                            "Rank " + std::to_string(rank) +
                                " and rank 0 number processes differently, as containers do; ranks in different "
                                "containers exchange by tcp."};
  }

  Descriptor memory_;
  Mapped mapped_;
  std::string address_;
  ProcessWatch watches_[CQIL_MAX_RANKS];
};

std::unique_ptr<cqil_exchange_end> create(const cqil_exchange_options& options) {
  return std::make_unique<ShmEnd>(options);
}

}  // namespace
}  // namespace cqil

#else

namespace cqil {
namespace {

std::unique_ptr<cqil_exchange_end> create(const cqil_exchange_options&) {
  throw ExchangeFailure{CQIL_EXCHANGE_UNAVAILABLE, -1, "Shared memory between ranks needs Linux."};
}

}  // namespace
}  // namespace cqil
#endif

namespace cqil {

const cqil_exchange* shm_exchange() {
  static const cqil_exchange table = exchange_table<create>("shm");
  return &table;
}

}  // namespace cqil
