// A team of threads that walks a program together. The caller is member 0; the others wait between runs, spinning
// briefly, then parked; those a run does not need are not woken. Waiting inside a run spins, then yields, then parks
// too, so a descheduled member costs its own delay and not the machine.
#pragma once
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace cqil {

// Where a number of threads wait for each other, again and again.
class Barrier {
 public:
  explicit Barrier(int count) : count_(count) {}
  // Changes the number of threads. To be called while none of them waits.
  void set_count(int count) { count_ = count; }
  // Everything written before by any of the threads is seen after by all.
  void wait();
  // How often all have met.
  uint32_t rounds() const { return round_.load(std::memory_order_relaxed); }

 private:
  int count_;
  std::atomic<int> arrived_{0};
  std::atomic<uint32_t> round_{0};
  std::atomic<int> parked_{0};
  std::mutex mutex_;
  std::condition_variable released_;
};

class Team {
 public:
  // May start fewer threads than asked for when the system refuses more.
  explicit Team(int threads);
  ~Team();
  Team(const Team&) = delete;

  int size() const { return static_cast<int>(workers_.size()) + 1; }
  // Calls work(member) once on each of the first `members` and returns when all have finished. One run at a time. work
  // must not throw.
  void run(int members, const std::function<void(int member)>& work);

 private:
  // A member but the caller.
  struct Worker {
    std::thread thread;
    std::atomic<uint32_t> run{0};  // counts its runs
    std::mutex mutex;
    std::condition_variable started;
  };
  void serve(Worker& worker, int member);
  uint32_t wait_for_run(Worker& worker, uint32_t seen);

  std::vector<std::unique_ptr<Worker>> workers_;
  const std::function<void(int)>* work_ = nullptr;
  std::atomic<int> running_{0};
  std::atomic<bool> stop_{false};
  std::mutex mutex_;
  std::condition_variable finished_;
};

}  // namespace cqil
