// The first part of every wait: spinning, then yielding. What comes after it is sleep.
#pragma once
#include <chrono>
#include <thread>

namespace cqil {

inline void pause_briefly() {
#if defined(__GNUC__) && (defined(__x86_64__) || defined(__i386__))
  __builtin_ia32_pause();
#elif defined(__GNUC__) && defined(__aarch64__)
  __asm__ __volatile__("yield");
#endif
}

// Waits until ready() by spinning for about ten microseconds, which are so many looks, then by yielding for about a
// hundred; false when it is time to sleep. Where a yield lets another process run, that may be the one which is waited
// for, and spinning would only keep it from its work: the next wait yields at once. Where a yield takes long, another
// process has this core and would keep it for slices of some milliseconds, while a thread that sleeps and is woken
// comes back sooner: for the next 20 ms nothing yields.
template <class Ready>
bool wait_briefly(Ready ready, int looks = 200) {
  using Clock = std::chrono::steady_clock;
  using Microseconds = std::chrono::microseconds;
  thread_local Clock::time_point shares_core_until;
  thread_local bool takes_turns = false;  // with another process, on this core
  for (int i = 0; i < (takes_turns ? 1 : looks); i++) {
    if (ready()) return true;
    pause_briefly();
  }
  Clock::time_point now = Clock::now();
  const Clock::time_point give_up = now + Microseconds(100);
  if (now < shares_core_until) return ready();
  do {
    for (int i = 0; i < 4; i++) {
      if (ready()) return true;
      pause_briefly();
    }
    const Clock::time_point before = Clock::now();
    std::this_thread::yield();
    now = Clock::now();
    takes_turns = now - before > Microseconds(1);
    if (now - before > Microseconds(50)) shares_core_until = now + Microseconds(20000);
  } while (now < give_up);
  return ready();
}

}  // namespace cqil
