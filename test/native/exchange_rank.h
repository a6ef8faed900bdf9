// A rank as tests of exchanges see it, and what runs some of them as threads.
#pragma once
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <functional>
#include <future>
#include <string>
#include <thread>
#include <vector>

#include "exchange/exchanges.h"

#if defined(__unix__)
#include <sys/mman.h>
#endif

// More than any machine needs for what ought to come: it is waited for, so only a failure takes as long.
constexpr int64_t kGenerous = INT64_C(120) * 1000 * 1000 * 1000;
constexpr int64_t kMillisecond = 1000 * 1000;

// Counts events beside the exchange, also between processes, so that tests need no time on the clock.
inline std::atomic<int>& events() {
  static auto* const counter = [] {
#if defined(__unix__)
    void* shared = mmap(nullptr, sizeof(std::atomic<int>), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return new (shared) std::atomic<int>(0);
#else
    return new std::atomic<int>(0);
#endif
  }();
  return *counter;
}

inline void nap(int microseconds) { std::this_thread::sleep_for(std::chrono::microseconds(microseconds)); }

inline void await_events(int count) {
  while (events().load() < count) nap(1000);
}

// What a call came to.
struct Came {
  cqil_exchange_status status;
  int rank;
  std::string text;
  bool ok() const { return status == CQIL_EXCHANGE_OK; }
};

class Rank {
 public:
  Rank(const cqil_exchange* calls, cqil_exchange_end* end) : calls_(calls), end_(end) {
    cqil_exchange_state state;
    calls_->describe(end_, &state);
    rank = state.rank, size = state.size;
  }
  Came meet(int64_t patience = kGenerous) const {
    return call([&](auto failure) { return calls_->meet(end_, patience, failure); });
  }
  Came gather(const void* mine, void* all, int64_t bytes, int64_t patience = kGenerous) const {
    return call([&](auto failure) { return calls_->gather(end_, mine, all, bytes, patience, failure); });
  }
  Came broadcast(void* data, int64_t bytes, int64_t patience = kGenerous) const {
    return call([&](auto failure) { return calls_->broadcast(end_, data, bytes, patience, failure); });
  }
  void abort(int lost, const char* why) const { calls_->abort(end_, lost, why); }

  int rank, size;

 private:
  template <class Call>
  static Came call(Call its) {
    cqil_exchange_failure failure = {-1, ""};
    const cqil_exchange_status status = its(&failure);
    return {status, failure.rank, failure.text};
  }
  const cqil_exchange* calls_;
  cqil_exchange_end* end_;
};

// What a rank does; what is wrong, or nothing.
using Body = std::function<std::string(Rank&)>;

inline std::string told(const Came& came) {
  return "status " + std::to_string(came.status) + " of rank " + std::to_string(came.rank) + ": " + came.text;
}

// Makes an end, meets the others, does the body's work and closes. address: rank 0 gives it, the others take it.
inline std::string run_rank(const cqil_exchange* calls, const cqil_exchange_options& options,
                            const std::function<void(const std::string&)>& publish, const Body& body) {
  cqil_exchange_end* end = nullptr;
  cqil_exchange_failure failure = {};
  if (calls->create(&options, &end, &failure) != CQIL_EXCHANGE_OK) {
    if (options.rank == 0) publish("");
    return std::string("create: ") + failure.text;
  }
  if (options.rank == 0) {
    cqil_exchange_state state;
    calls->describe(end, &state);
    publish(state.address);
  }
  Rank rank(calls, end);
  const Came met = rank.meet();
  std::string wrong = met.ok() ? body(rank) : "meet: " + told(met);
  calls->close(end);
  return wrong;
}

// Runs `size` ranks as threads; what each found wrong.
inline std::vector<std::string> run_threads(const cqil_exchange* calls, int size, int64_t slot_bytes,
                                            const Body& body) {
  events() = 0;
  std::promise<std::string> promise;
  const std::shared_future<std::string> address = promise.get_future().share();
  std::vector<std::string> wrong(static_cast<size_t>(size));
  std::vector<std::thread> threads;
  for (int r = 0; r < size; r++)
    threads.emplace_back([&, r] {
      cqil_exchange_options options = {};
      options.rank = r, options.size = size, options.slot_bytes = slot_bytes;
      std::string its_address;
      if (r > 0) its_address = address.get(), options.address = its_address.c_str();
      wrong[static_cast<size_t>(r)] =
          run_rank(calls, options, [&](const std::string& text) { promise.set_value(text); }, body);
    });
  for (std::thread& thread : threads) thread.join();
  return wrong;
}
