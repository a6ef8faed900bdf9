#include "team.h"

#include <algorithm>
#include <chrono>
#include <exception>

#include "../core/wait_briefly.h"

namespace cqil {

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
  if (wait_briefly<Waiting::kThreads>(released)) return;
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
  if (wait_briefly<Waiting::kThreads>(done)) return;
  std::unique_lock<std::mutex> lock(mutex_);
  finished_.wait(lock, done);
}

uint32_t Team::wait_for_run(Worker& worker, uint32_t seen) {
  auto started = [&] {
    return worker.run.load(std::memory_order_acquire) != seen || stop_.load(std::memory_order_relaxed);
  };
  if (!wait_briefly<Waiting::kThreads>(started)) {
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
