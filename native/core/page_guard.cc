#include "page_guard.h"

#ifndef _WIN32
#include <dlfcn.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <mutex>
#endif

namespace cqil {

#ifdef _WIN32

PageGuard::PageGuard(const void*, size_t) {}
PageGuard::~PageGuard() = default;
bool PageGuard::failed() const { return false; }

#else

namespace {

// Read by the handler, which may take no lock: begin is 0 where there is no mapping, and end is written before it.
struct Slot {
  std::atomic<uintptr_t> begin{0}, end{0};
  std::atomic<bool> failed{false};
};
constexpr int kSlots = 1024;  // files at once
static_assert(std::atomic<uintptr_t>::is_always_lock_free, "a signal handler reads them");
Slot slots[kSlots];

std::mutex installing;
int in_use = 0;
bool installed = false;
struct sigaction previous;  // from before ours; written before any mapping is guarded
uintptr_t page_size = 4096;

// Whether the address lies in a guarded mapping. Then zeros replace the mapping from that page on. Which thread has
// faulted does not matter, because only our code reads these mappings. The only call is mmap, which on Linux and macOS
// is a plain system call.
bool fill(uintptr_t address) {
  for (Slot& slot : slots) {
    const uintptr_t begin = slot.begin.load(std::memory_order_acquire), end = slot.end.load(std::memory_order_relaxed);
    if (begin == 0 || address < begin || address >= end) continue;
    const uintptr_t page = address / page_size * page_size;
    slot.failed.store(true, std::memory_order_relaxed);
    // The rest goes with the page: nothing follows the end of a file, and a model that has lost a page is of no use.
    return mmap(reinterpret_cast<void*>(page), end - page, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) !=
           MAP_FAILED;
  }
  return false;
}

void hand_on(int signal, siginfo_t* info, void* context) {
  if (previous.sa_flags & SA_SIGINFO) return previous.sa_sigaction(signal, info, context);
  if (previous.sa_handler != SIG_DFL && previous.sa_handler != SIG_IGN) return previous.sa_handler(signal);
  const bool sent = info->si_code <= 0;  // by a process, not for an access
  if (sent && previous.sa_handler == SIG_IGN) return;
  struct sigaction ends = {};
  ends.sa_handler = SIG_DFL;
  sigaction(signal, &ends, nullptr);
  if (sent) raise(signal);  // arrives when this handler has returned; a bad access is simply repeated then
}

void on_bus_error(int signal, siginfo_t* info, void* context) {
  const int error = errno;
  if (info->si_code <= 0 || !fill(reinterpret_cast<uintptr_t>(info->si_addr))) hand_on(signal, info, context);
  errno = error;
}

void install() {
  if (installed) return;
  page_size = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  struct sigaction ours = {};
  ours.sa_sigaction = on_bus_error;
  ours.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigemptyset(&ours.sa_mask);
  installed = sigaction(SIGBUS, nullptr, &previous) == 0 && sigaction(SIGBUS, &ours, nullptr) == 0;
#ifdef RTLD_NODELETE
  // A handler that another one hands on to must stay, even if the library is closed.
  Dl_info self;
  if (installed && dladdr(reinterpret_cast<void*>(&on_bus_error), &self) && self.dli_fname) {
    static void* const kept = dlopen(self.dli_fname, RTLD_LAZY | RTLD_NOLOAD | RTLD_NODELETE);
    (void)kept;
  }
#endif
}

// Puts back what was there, unless somebody else has come since, who may hand on to ours.
void uninstall() {
  struct sigaction now;
  if (!installed || sigaction(SIGBUS, nullptr, &now) != 0) return;
  if (!(now.sa_flags & SA_SIGINFO) || now.sa_sigaction != on_bus_error) return;
  installed = sigaction(SIGBUS, &previous, nullptr) != 0;
}

}  // namespace

PageGuard::PageGuard(const void* data, size_t size) {
  if (size == 0) return;
  std::lock_guard<std::mutex> lock(installing);
  install();
  if (!installed) return;
  for (int i = 0; i < kSlots && slot_ < 0; i++)
    if (slots[i].begin == 0) slot_ = i;
  if (slot_ < 0) return;
  in_use++;
  const auto begin = reinterpret_cast<uintptr_t>(data);
  slots[slot_].failed = false;
  slots[slot_].end.store((begin + size + page_size - 1) / page_size * page_size, std::memory_order_relaxed);
  slots[slot_].begin.store(begin, std::memory_order_release);
}

PageGuard::~PageGuard() {
  if (slot_ < 0) return;
  std::lock_guard<std::mutex> lock(installing);
  slots[slot_].begin = 0;
  if (--in_use == 0) uninstall();
}

bool PageGuard::failed() const { return slot_ >= 0 && slots[slot_].failed.load(std::memory_order_relaxed); }

#endif

}  // namespace cqil
