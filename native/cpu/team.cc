#include "team.h"

#include <algorithm>
#include <chrono>
#include <exception>

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

using Clock = std::chrono::steady_clock;
using Microseconds = std::chrono::microseconds;

// Until this time the thread parks rather than yields. Another process shares its core and would keep it for a
// scheduler's slice of some milliseconds, while a parked thread that is woken comes back sooner.
thread_local Clock::time_point shares_core_until;

// Waits until ready() by spinning for about ten microseconds, then by yielding for about a hundred, which covers the
// usual imbalance of a phase; false when it is time to park.
template <class Ready>
bool wait_briefly(Ready ready) {
  for (int i = 0; i < 200; i++) {
    if (ready()) return true;
    pause();
  }
  Clock::time_point now = Clock::now();
  const Clock::time_point give_up = now + Microseconds(100);
  if (now < shares_core_until) return ready();
  do {
    for (int i = 0; i < 4; i++) {
      if (ready()) return true;
      pause();
    }
    std::this_thread::yield();
    const Clock::time_point before = now;
    now = Clock::now();
    if (now - before > Microseconds(50)) shares_core_until = now + Microseconds(20000);
  } while (now < give_up);
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
  for (int member = 1; member < threads; member++) {
    try {
      auto worker = std::make_unique<Worker>();
      worker->thread = std::thread([this, member, own = worker.get()] { serve(*own, member); });
      workers_.push_back(std::move(worker));
    } catch (const std::exception&) {
      return;  // The system has no more threads to give, or no memory for one; the team works with those it got.
    }
  }
}

Team::~Team() {
  stop_ = true;
  for (const auto& worker : workers_) {
    {
      std::lock_guard<std::mutex> lock(worker->mutex);
    }
    worker->started.notify_one();
    worker->thread.join();
  }
}

void Team::run(int members, const std::function<void(int)>& work) {
  const int others = std::min(members, size()) - 1;
  if (others <= 0) return work(0);
  work_ = &work;
  running_.store(others, std::memory_order_relaxed);
  for (int i = 0; i < others; i++) {
    Worker& worker = *workers_[static_cast<size_t>(i)];
    {
      std::lock_guard<std::mutex> lock(worker.mutex);
      worker.run.fetch_add(1, std::memory_order_release);
    }
    worker.started.notify_one();
  }
  work(0);
  auto done = [this] { return running_.load(std::memory_order_acquire) == 0; };
  if (wait_briefly(done)) return;
  std::unique_lock<std::mutex> lock(mutex_);
  finished_.wait(lock, done);
}

uint32_t Team::wait_for_run(Worker& worker, uint32_t seen) {
  auto started = [&] {
    return worker.run.load(std::memory_order_acquire) != seen || stop_.load(std::memory_order_relaxed);
  };
  if (!wait_briefly(started)) {
    std::unique_lock<std::mutex> lock(worker.mutex);
    worker.started.wait(lock, started);
  }
  return worker.run.load(std::memory_order_acquire);
}

void Team::serve(Worker& worker, int member) {
  uint32_t seen = 0;
  for (;;) {
    const uint32_t now = wait_for_run(worker, seen);
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
