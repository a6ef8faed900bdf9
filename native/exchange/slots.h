// An exchange through memory that all ranks see: what the `shm` and `memory` exchanges have in common.
//
// A message, or a piece of one, is a turn. Turns count up, the same on all ranks. In a turn a rank writes its bytes
// into one of its two slots and then says so by its turn counter; it reads others' slots when their counters say so.
// Two slots suffice: a counter at turn t says that its rank has done with turn t - 1, so once all counters are there,
// the slots of turn t - 1 are free for turn t + 1.
#pragma once
#include <atomic>
#include <cstdint>
#include <string>

#include "end.h"

#if defined(_MSC_VER)
#pragma warning(disable : 4324)  // that a structure is padded to its alignment, as is wanted here
#endif

namespace cqil {

enum SeatState : uint32_t { kAbsent = 0, kComing, kTaken, kClosed };

// What a rank says about its turn, so that ranks that do not make the same call find out.
struct Said {
  uint32_t kind;  // CallKind
  uint32_t reserved;
  int64_t bytes;  // of the whole message
};

// One rank's place. Only `turn` and `said` change while nobody sleeps.
struct alignas(128) Seat {
  std::atomic<uint32_t> turn;
  std::atomic<uint32_t> state;               // SeatState
  Said said[2];                              // of turn t in said[t % 2]
  std::atomic<int32_t> pid;                  // its process; 0 in the exchange between threads
  alignas(64) std::atomic<uint32_t> awaits;  // the rank it sleeps for, plus one; 0: it does not sleep
  std::atomic<uint32_t> bell;                // changes when its sleep must end
};

// Why an exchange ended for all ranks.
struct Verdict {
  std::atomic<uint32_t> state;  // 0: there is none; 1: one is being written; 2: it can be read
  uint32_t status;
  int32_t rank;
  char text[sizeof(cqil_exchange_failure::text)];
};

// The beginning of the memory; slots follow.
struct alignas(128) Table {
  std::atomic<uint64_t> magic;  // written last
  uint32_t abi;
  int32_t size;
  int64_t slot_bytes;
  uint64_t pid_namespace;  // in which the process numbers of seats mean something; 0: not known, or there are none
  Verdict verdict;
  Seat seats[CQIL_MAX_RANKS];
};
static_assert(std::atomic<uint32_t>::is_always_lock_free && std::atomic<uint64_t>::is_always_lock_free,
              "counters in shared memory have no locks");

// Bytes of the memory of an exchange.
int64_t table_bytes(int size, int64_t slot_bytes);
// slot_bytes as options give it, checked and rounded up.
int64_t checked_slot_bytes(int64_t slot_bytes);
void make_table(Table* table, int size, int64_t slot_bytes, uint64_t pid_namespace);
// Fails unless this memory, of `bytes` bytes, holds a table that this version made for `size` ranks.
void check_table(const Table* table, int64_t bytes, int rank, int size);

class SlotsEnd : public cqil_exchange_end {
 public:
  void meet(const Deadline& deadline) override;
  void gather(const uint8_t* mine, uint8_t* all, int64_t bytes, const Deadline& deadline) override;
  void broadcast(uint8_t* data, int64_t bytes, const Deadline& deadline) override;
  void abort(int lost, const char* why) noexcept override;

 protected:
  using cqil_exchange_end::cqil_exchange_end;
  // Takes this rank's seat at a table, which outlives the seat. Fails where another has it.
  void sit(Table* table, int32_t pid);
  // Leaves the seat, if it was taken. For destructors.
  void leave() noexcept;

  // Sleeps until the bell of this rank's seat is no longer `seen`, but not longer than this. It may return early.
  virtual void sleep(std::atomic<uint32_t>& bell, uint32_t seen, std::chrono::nanoseconds at_most) = 0;
  // Ends the sleep of a rank whose bell has just changed.
  virtual void wake(std::atomic<uint32_t>& bell) noexcept = 0;
  // Called once, when all ranks have come.
  virtual void all_came() = 0;
  // Whether the process of a rank has ended.
  virtual bool ended(int rank) = 0;
  // "Rank 1 (pid 123)"
  virtual std::string name(int rank) const = 0;

  Seat& seat(int of) const { return table_->seats[of]; }

  Table* table_ = nullptr;

 private:
  uint8_t* slot(uint32_t turn, int rank);
  // Waits until there() is true, which another rank brings about before it rings.
  template <class There>
  void await(int other, const Deadline& deadline, There there);
  template <class There>
  void sleep_until(int other, const Deadline& deadline, There there);
  void await_turn(int other, uint32_t turn, const Deadline& deadline);
  void begin_turn(const Said& said, const Deadline& deadline);
  void say_turn();
  // Waits for the other rank's part of this turn, n bytes of the message, and copies it.
  void take(int other, const Said& said, uint8_t* to, int64_t n, const Deadline& deadline);
  void look_for_ended();
  void throw_verdict();
  // Ends the exchange for all ranks, unless it has been ended before.
  void judge(cqil_exchange_status status, int about, const char* text) noexcept;
  [[noreturn]] void condemn(cqil_exchange_status status, int about, const std::string& text);
  void ring(int other) noexcept;

  uint32_t turn_ = 0;
};

}  // namespace cqil
