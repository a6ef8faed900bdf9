// The first part of every wait, of threads and of ranks: spinning, then yielding. What comes after it is sleep.
#pragma once
#include <chrono>
#include <thread>
#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#endif

namespace cqil {

inline void pause_briefly() {
#if defined(__x86_64__) || defined(_M_X64)
  _mm_pause();
#elif defined(__aarch64__) && !defined(_MSC_VER)
  __asm__ __volatile__("yield");
#endif
}

// Who waits for whom.
enum class Waiting {
  kThreads,    // threads of a team, which have a core each where nothing else runs
  kProcesses,  // ranks, two of which may have one core
};

// What a thread remembers of its last waits.
struct SharedCore {
  std::chrono::steady_clock::time_point until;
  bool takes_turns = false;
};
template <Waiting waiting>
inline thread_local SharedCore shared_core;

// Waits until ready() by spinning for about ten microseconds, which is 200 looks, then by yielding for about a hundred,
// which covers the usual imbalance of a phase; false when it is time to sleep. Where a yield takes long, another
// process has this core and would keep it for slices of some milliseconds, while a thread that sleeps and is woken
// comes back sooner: for the next 20 ms nothing yields. Where a yield of a rank lets another process run, that may be
// the one which is waited for, and spinning would only keep it from its work: the next wait yields at once.
template <Waiting waiting, class Ready>
bool wait_briefly(Ready ready, int looks = 200) {
  using Clock = std::chrono::steady_clock;
  using Microseconds = std::chrono::microseconds;
  SharedCore& core = shared_core<waiting>;
  for (int i = 0; i < (core.takes_turns ? 1 : looks); i++) {
    if (ready()) return true;
    pause_briefly();
  }
  Clock::time_point now = Clock::now();
  const Clock::time_point give_up = now + Microseconds(100);
  if (now < core.until) return ready();
  do {
    for (int i = 0; i < 4; i++) {
      if (ready()) return true;
      pause_briefly();
    }
    const Clock::time_point before = waiting == Waiting::kProcesses ? Clock::now() : now;
    std::this_thread::yield();
    now = Clock::now();
    core.takes_turns = waiting == Waiting::kProcesses && now - before > Microseconds(1);
    if (now - before > Microseconds(50)) core.until = now + Microseconds(20000);
  } while (now < give_up);
  return ready();
}

}  // namespace cqil
