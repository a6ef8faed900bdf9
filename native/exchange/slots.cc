#include "slots.h"

#include <algorithm>
#include <cstring>
#include <new>
#include <thread>

#include "../core/wait_briefly.h"

namespace cqil {
namespace {

using std::chrono::milliseconds;
using Clock = Deadline::Clock;

constexpr uint64_t kMagic = 0x31656c6261547163;
// How often a rank that waits looks whether others live.
constexpr milliseconds kLook(50);
constexpr int64_t kDefaultSlot = 64 << 10, kLeastSlot = 64, kMostSlot = 16 << 20;

// Whether counter `turn` is at `wanted` or later. Counters may wrap.
bool reached(uint32_t turn, uint32_t wanted) { return static_cast<int32_t>(turn - wanted) >= 0; }

}  // namespace

int64_t table_bytes(int size, int64_t slot_bytes) {
  return static_cast<int64_t>(sizeof(Table)) + 2 * size * slot_bytes;
}

int64_t checked_slot_bytes(int64_t slot_bytes) {
  if (slot_bytes == 0) return kDefaultSlot;
  if (slot_bytes < kLeastSlot || slot_bytes > kMostSlot)
    throw ExchangeFailure{CQIL_EXCHANGE_INVALID_ARGUMENT, -1, "A slot of an exchange has 64 bytes to 16 MB."};
  return (slot_bytes + 127) / 128 * 128;
}

void make_table(Table* table, int size, int64_t slot_bytes, uint64_t pid_namespace) {
  new (table) Table();
  table->abi = CQIL_EXCHANGE_ABI;
  table->size = size;
  table->slot_bytes = slot_bytes;
  table->pid_namespace = pid_namespace;
  table->magic.store(kMagic, std::memory_order_release);
}

void check_table(const Table* table, int64_t bytes, int rank, int size) {
  if (bytes < static_cast<int64_t>(sizeof(Table)) || table->magic.load(std::memory_order_acquire) != kMagic ||
      table->abi != CQIL_EXCHANGE_ABI)
    throw ExchangeFailure{
        CQIL_EXCHANGE_UNAVAILABLE, 0,
        "What rank 0 shares is not what this version of cqil expects: it comes from another version."};
  if (table->size != size)
    throw ExchangeFailure{CQIL_EXCHANGE_INVALID_ARGUMENT, 0,
                          "Rank " + std::to_string(rank) + " expects " + std::to_string(size) +
                              " ranks, rank 0 expects " + std::to_string(table->size) + "."};
  if (bytes != table_bytes(size, table->slot_bytes))
    throw ExchangeFailure{CQIL_EXCHANGE_UNAVAILABLE, 0, "What rank 0 shares is not as large as it says."};
}

void SlotsEnd::sit(Table* table, int32_t pid) {
  uint32_t state = kAbsent;
  Seat& own = table->seats[rank];
  if (!own.state.compare_exchange_strong(state, kComing, std::memory_order_seq_cst))
    throw ExchangeFailure{CQIL_EXCHANGE_INVALID_ARGUMENT, rank, "Rank " + std::to_string(rank) + " has come already."};
  own.pid.store(pid, std::memory_order_relaxed);
  own.state.store(kTaken, std::memory_order_seq_cst);
  table_ = table;
  for (int r = 0; r < size; r++) ring(r);
}

void SlotsEnd::leave() noexcept {
  if (!table_) return;
  seat(rank).state.store(kClosed, std::memory_order_seq_cst);
  for (int r = 0; r < size; r++) ring(r);
  table_ = nullptr;
}

uint8_t* SlotsEnd::slot(uint32_t turn, int of) {
  return reinterpret_cast<uint8_t*>(table_ + 1) + (static_cast<int64_t>(turn % 2) * size + of) * table_->slot_bytes;
}

void SlotsEnd::ring(int other) noexcept {
  Seat& its = seat(other);
  if (other == rank || its.awaits.load(std::memory_order_seq_cst) == 0) return;
  its.bell.fetch_add(1, std::memory_order_seq_cst);
  wake(its.bell);
}

void SlotsEnd::judge(cqil_exchange_status status, int about, const char* text) noexcept {
  Verdict& verdict = table_->verdict;
  uint32_t none = 0;
  if (!verdict.state.compare_exchange_strong(none, 1, std::memory_order_seq_cst)) return;
  verdict.status = status;
  verdict.rank = about;
  copy_text(verdict.text, text);
  verdict.state.store(2, std::memory_order_seq_cst);
  for (int r = 0; r < size; r++) {  // all, whether or not they seem to sleep
    seat(r).bell.fetch_add(1, std::memory_order_seq_cst);
    wake(seat(r).bell);
  }
}

void SlotsEnd::condemn(cqil_exchange_status status, int about, const std::string& text) {
  judge(status, about, text.c_str());
  throw_verdict();
  throw ExchangeFailure{status, about, text};  // not reached: there is a verdict, this one or an earlier one
}

void SlotsEnd::throw_verdict() {
  const Verdict& verdict = table_->verdict;
  if (verdict.state.load(std::memory_order_seq_cst) == 0) return;
  // It is being written, unless its writer was killed meanwhile.
  const auto give_up = Clock::now() + kLook;
  while (verdict.state.load(std::memory_order_acquire) == 1 && Clock::now() < give_up) std::this_thread::yield();
  if (verdict.state.load(std::memory_order_acquire) == 1)
    throw ExchangeFailure{CQIL_EXCHANGE_RANK_LOST, -1, "A rank ended while it was about to say why it aborts."};
  char text[sizeof verdict.text];
  std::memcpy(text, verdict.text, sizeof text);
  text[sizeof text - 1] = 0;
  throw ExchangeFailure{static_cast<cqil_exchange_status>(verdict.status), verdict.rank, text};
}

void SlotsEnd::abort(int lost, const char* why) noexcept {
  judge(lost >= 0 ? CQIL_EXCHANGE_RANK_LOST : CQIL_EXCHANGE_ABORTED, lost, why);
}

void SlotsEnd::look_for_ended() {
  for (int r = 0; r < size; r++) {
    // A rank whose process ends as it should has closed its end before.
    if (r == rank || seat(r).state.load(std::memory_order_acquire) != kTaken || !ended(r)) continue;
    if (seat(r).state.load(std::memory_order_acquire) == kTaken)
      condemn(CQIL_EXCHANGE_RANK_LOST, r, name(r) + " has ended.");
  }
}

template <class There>
void SlotsEnd::await(int other, const Deadline& deadline, There there) {
  if (!wait_briefly<Waiting::kProcesses>(
          [&] { return there() || table_->verdict.state.load(std::memory_order_relaxed) != 0; }) ||
      !there())
    sleep_until(other, deadline, there);
}

template <class There>
void SlotsEnd::sleep_until(int other, const Deadline& deadline, There there) {
  Seat& own = seat(rank);
  struct Awake {
    Seat& own;
    ~Awake() { own.awaits.store(0, std::memory_order_relaxed); }
  } awake{own};
  // This rank says that it sleeps before it looks again, and others look whether it sleeps after they have done what it
  // waits for: one of the two sees the other.
  own.awaits.store(static_cast<uint32_t>(other) + 1, std::memory_order_seq_cst);
  auto next_look = Clock::now() + kLook;
  for (;;) {
    const uint32_t bell = own.bell.load(std::memory_order_seq_cst);
    if (there()) return;
    throw_verdict();
    if (seat(other).state.load(std::memory_order_seq_cst) == kClosed) {
      if (there()) return;
      throw ExchangeFailure{CQIL_EXCHANGE_CLOSED, other, name(other) + " has closed its end of the exchange."};
    }
    const auto now = Clock::now();
    if (now >= next_look) {
      look_for_ended();
      next_look = now + kLook;
    }
    if (deadline.passed(now))
      condemn(CQIL_EXCHANGE_RANK_LOST, other, name(other) + " has not answered for " + deadline.patience() + ".");
    sleep(own.bell, bell, deadline.left(now, next_look - now));
  }
}

void SlotsEnd::await_turn(int other, uint32_t turn, const Deadline& deadline) {
  const std::atomic<uint32_t>& counter = seat(other).turn;
  await(other, deadline, [&] { return reached(counter.load(std::memory_order_seq_cst), turn); });
}

void SlotsEnd::meet(const Deadline& deadline) {
  for (int r = 0; r < size; r++)
    if (r != rank) await(r, deadline, [&] { return seat(r).state.load(std::memory_order_seq_cst) >= kTaken; });
  all_came();
}

void SlotsEnd::begin_turn(const Said& said, const Deadline& deadline) {
  throw_verdict();
  for (int r = 0; r < size; r++)
    if (r != rank) await_turn(r, turn_, deadline);
  turn_++;
  seat(rank).said[turn_ % 2] = said;
}

void SlotsEnd::say_turn() {
  seat(rank).turn.store(turn_, std::memory_order_seq_cst);
  for (int r = 0; r < size; r++)
    if (seat(r).awaits.load(std::memory_order_seq_cst) == static_cast<uint32_t>(rank) + 1) ring(r);
}

void SlotsEnd::take(int other, const Said& said, uint8_t* to, int64_t n, const Deadline& deadline) {
  await_turn(other, turn_, deadline);
  const Said& its = seat(other).said[turn_ % 2];
  if (its.kind != said.kind || its.bytes != said.bytes)
    condemn(CQIL_EXCHANGE_OUT_OF_STEP, other, out_of_step({other, its.kind, its.bytes}, {rank, said.kind, said.bytes}));
  if (n > 0) std::memcpy(to, slot(turn_, other), static_cast<size_t>(n));
}

void SlotsEnd::gather(const uint8_t* mine, uint8_t* all, int64_t bytes, const Deadline& deadline) {
  const Said said = {kGather, 0, bytes};
  int64_t at = 0;
  do {
    const int64_t n = std::min(table_->slot_bytes, bytes - at);
    begin_turn(said, deadline);
    if (n > 0) std::memcpy(slot(turn_, rank), mine + at, static_cast<size_t>(n));
    say_turn();
    for (int r = 0; r < size; r++)
      if (r != rank) take(r, said, all + r * bytes + at, n, deadline);
    at += n;
  } while (at < bytes);
  if (bytes > 0 && all + rank * bytes != mine) std::memcpy(all + rank * bytes, mine, static_cast<size_t>(bytes));
}

void SlotsEnd::broadcast(uint8_t* data, int64_t bytes, const Deadline& deadline) {
  const Said said = {kBroadcast, 0, bytes};
  int64_t at = 0;
  do {
    const int64_t n = std::min(table_->slot_bytes, bytes - at);
    begin_turn(said, deadline);
    if (rank == 0 && n > 0) std::memcpy(slot(turn_, 0), data + at, static_cast<size_t>(n));
    say_turn();
    if (rank != 0) take(0, said, data + at, n, deadline);
    at += n;
  } while (at < bytes);
}

}  // namespace cqil
