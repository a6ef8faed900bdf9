#include "team.h"

#include <chrono>
#include <system_error>

#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#endif

namespace cqil {
namespace {

void pause() {
#if defined(__x86_64__) || defined(_M_X64)
  _mm_pause();
#elif defined(__aarch64__) && !defined(_MSC_VER)
  __asm__ __volatile__("yield");
#endif
}

// Waits until ready() by spinning for about ten microseconds, then by yielding for about a hundred, which covers the
// usual imbalance of a phase; false when it is time to park.
template <class Ready>
bool wait_briefly(Ready ready) {
  using Clock = std::chrono::steady_clock;
  for (int i = 0; i < 200; i++) {
    if (ready()) return true;
    pause();
  }
  const Clock::time_point give_up = Clock::now() + std::chrono::microseconds(100);
  do {
    for (int i = 0; i < 4; i++) {
      if (ready()) return true;
      pause();
    }
    std::this_thread::yield();
  } while (Clock::now() < give_up);
  return ready();
}

}  // namespace

void Barrier::wait() {
  const uint32_t round = round_.load(std::memory_order_relaxed);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) == count_ - 1) {
    arrived_.store(0, std::memory_order_relaxed);
    round_.store(round + 1, std::memory_order_seq_cst);
    // A waiter counts itself as parked before it looks at the round again, so one of the two sees the other.
    if (parked_.load(std::memory_order_seq_cst) > 0) {
      std::lock_guard<std::mutex> lock(mutex_);
      released_.notify_all();
    }
    return;
  }
  auto released = [&] { return round_.load(std::memory_order_acquire) != round; };
  if (wait_briefly(released)) return;
  std::unique_lock<std::mutex> lock(mutex_);
  parked_.fetch_add(1, std::memory_order_seq_cst);
  released_.wait(lock, [&] { return round_.load(std::memory_order_seq_cst) != round; });
  parked_.fetch_sub(1, std::memory_order_relaxed);
}

Team::Team(int threads) {
  workers_.reserve(static_cast<size_t>(threads > 1 ? threads - 1 : 0));
  try {
    for (int member = 1; member < threads; member++) workers_.emplace_back([this, member] { serve(member); });
  } catch (const std::system_error&) {
    // The system has no more threads to give; the team works with those it got.
  }
}

Team::~Team() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
  }
  started_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void Team::run(const std::function<void(int)>& work) {
  if (workers_.empty()) return work(0);
  {
    std::lock_guard<std::mutex> lock(mutex_);
    work_ = &work;
    running_.store(static_cast<int>(workers_.size()), std::memory_order_relaxed);
    run_.fetch_add(1, std::memory_order_release);
  }
  started_.notify_all();
  work(0);
  auto done = [this] { return running_.load(std::memory_order_acquire) == 0; };
  if (wait_briefly(done)) return;
  std::unique_lock<std::mutex> lock(mutex_);
  finished_.wait(lock, done);
}

uint32_t Team::wait_for_run(uint32_t seen) {
  auto started = [&] { return run_.load(std::memory_order_acquire) != seen || stop_.load(std::memory_order_relaxed); };
  if (!wait_briefly(started)) {
    std::unique_lock<std::mutex> lock(mutex_);
    started_.wait(lock, started);
  }
  return run_.load(std::memory_order_acquire);
}

void Team::serve(int member) {
  uint32_t seen = 0;
  for (;;) {
    const uint32_t now = wait_for_run(seen);
    if (now == seen) return;  // woken to stop
    seen = now;
    (*work_)(member);
    if (running_.fetch_sub(1, std::memory_order_acq_rel) == 1) {
      std::lock_guard<std::mutex> lock(mutex_);
      finished_.notify_one();
    }
  }
}

}  // namespace cqil
