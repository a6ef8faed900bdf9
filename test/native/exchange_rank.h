// A rank as tests of exchanges see it, and what runs some of them, as threads.
#pragma once
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <functional>
#include <new>
#include <string>
#include <thread>
#include <vector>

#include "exchange/exchanges.h"

#if defined(__unix__)
#include <sys/mman.h>
#endif

// Longer than any machine needs. Calls return as soon as they can, so only a failure takes as long.
constexpr int64_t kGenerous = INT64_C(120) * 1000 * 1000 * 1000;
constexpr int64_t kMillisecond = 1000 * 1000;

// What ranks of a test know of each other besides the exchange, so that tests need no time on the clock. All of them
// see it, processes too.
struct Board {
  std::atomic<int> published;  // how often rank 0 has published an address
  char address[128];
  std::atomic<int> events;        // of any kind that a test counts
  std::atomic<int> pid;           // of the rank that a test ends
  std::atomic<int64_t> ended_at;  // when, in nanoseconds of the steady clock
};

inline Board& board() {
  static auto* const shared = [] {
#if defined(__unix__)
    void* memory = mmap(nullptr, sizeof(Board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return new (memory) Board();
#else
    return new Board();
#endif
  }();
  return *shared;
}

inline void reset_board() { board().published = 0, board().events = 0, board().pid = 0, board().ended_at = 0; }

inline void nap(int microseconds) { std::this_thread::sleep_for(std::chrono::microseconds(microseconds)); }

inline void await_events(int count) {
  while (board().events.load() < count) nap(1000);
}

inline int64_t now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

// The outcome of a call.
struct Came {
  cqil_exchange_status status;
  int rank;
  std::string text;
  bool ok() const { return status == CQIL_EXCHANGE_OK; }
};

inline std::string told(const Came& came) {
  return "status " + std::to_string(came.status) + " of rank " + std::to_string(came.rank) + ": " + came.text;
}

class Rank {
 public:
  Rank(const cqil_exchange* calls, cqil_exchange_end* end) : calls_(calls), end_(end) {
    const cqil_exchange_state its = state();
    rank = its.rank, size = its.size;
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
  cqil_exchange_state state() const {
    cqil_exchange_state its;
    calls_->describe(end_, &its);
    return its;
  }

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

// What a rank does. Returns what is wrong, or nothing.
using Body = std::function<std::string(Rank&)>;

// An exchange, and what its ends are made with besides rank, size and address.
struct Made {
  const cqil_exchange* calls;
  const char* leaders_address = nullptr;
  const uint8_t* token = nullptr;
  int64_t slot_bytes = 0;
};

// Makes an end, meets the others, does the body's work and closes. Rank 0 publishes its address for the `round`th time.
inline std::string run_rank(const Made& made, int rank, int size, int round, const Body& body) {
  cqil_exchange_options options = {};
  options.rank = rank, options.size = size, options.token = made.token, options.slot_bytes = made.slot_bytes;
  options.address = rank == 0 ? made.leaders_address : board().address;
  while (rank > 0 && board().published.load() < round) nap(100);
  cqil_exchange_end* end = nullptr;
  cqil_exchange_failure failure = {};
  const bool created = made.calls->create(&options, &end, &failure) == CQIL_EXCHANGE_OK;
  if (rank == 0) {
    cqil_exchange_state state = {};
    if (created) made.calls->describe(end, &state);
    std::memcpy(board().address, state.address, sizeof state.address);
    board().published = round;
  }
  if (!created) return std::string("create: ") + failure.text;
  Rank its(made.calls, end);
  const Came met = its.meet();
  std::string wrong = met.ok() ? body(its) : "meet: " + told(met);
  made.calls->close(end);
  return wrong;
}

// Runs `size` ranks as threads; what each found wrong.
inline std::vector<std::string> run_threads(const Made& made, int size, const Body& body) {
  reset_board();
  std::vector<std::string> wrong(static_cast<size_t>(size));
  std::vector<std::thread> threads;
  for (int r = 0; r < size; r++)
    threads.emplace_back([&, r] { wrong[static_cast<size_t>(r)] = run_rank(made, r, size, 1, body); });
  for (std::thread& thread : threads) thread.join();
  return wrong;
}
