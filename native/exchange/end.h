// One rank's end of an exchange as C++ sees it: what an implementation must do, and the table made of it. Arguments are
// checked here, once, and what is thrown becomes a status and a sentence.
#pragma once
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

#include "../backend/exchange.h"

namespace cqil {

// Thrown by implementations; never leaves the table.
struct ExchangeFailure {
  cqil_exchange_status status;
  int rank;  // -1: none
  std::string text;
};

// A call that ranks make together.
enum CallKind : uint32_t { kGather = 1, kBroadcast };
struct RankCall {
  int rank;
  uint32_t kind;  // CallKind
  int64_t bytes;
};
// "Rank 1 gathers 15 bytes where rank 0 gathers 16 bytes."
std::string out_of_step(const RankCall& other, const RankCall& own);

// When a call has waited long enough.
class Deadline {
 public:
  using Clock = std::chrono::steady_clock;
  // patience_ns 0: never.
  explicit Deadline(int64_t patience_ns) : patience_ns_(patience_ns) {
    // A deadline further away than the clock counts never passes either.
    if (patience_ns_ > 0 && patience_ns_ < INT64_MAX / 4)
      end_ = Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::nanoseconds(patience_ns_));
  }
  bool passed(Clock::time_point now) const { return now >= end_; }
  // How long a wait that wants to sleep for this long may do so: until the deadline at most, and at least a moment.
  std::chrono::nanoseconds left(Clock::time_point now, std::chrono::nanoseconds wanted) const;
  // "2.5 s"
  std::string patience() const;

 private:
  int64_t patience_ns_;
  Clock::time_point end_ = Clock::time_point::max();
};

}  // namespace cqil

struct cqil_exchange_end {
  cqil_exchange_end(int32_t its_rank, int32_t its_size) : rank(its_rank), size(its_size) {}
  virtual ~cqil_exchange_end() = default;
  cqil_exchange_end(const cqil_exchange_end&) = delete;

  // Each does what its namesake in the table does. Its arguments have been checked. All but abort and describe may
  // throw ExchangeFailure.
  virtual void meet(const cqil::Deadline& deadline) = 0;
  virtual void gather(const uint8_t* mine, uint8_t* all, int64_t bytes, const cqil::Deadline& deadline) = 0;
  virtual void broadcast(uint8_t* data, int64_t bytes, const cqil::Deadline& deadline) = 0;
  virtual void abort(int lost, const char* why) noexcept = 0;
  virtual void describe(cqil_exchange_state& state) noexcept = 0;

  const int32_t rank;
  const int32_t size;
  bool met = false;
  // How a call failed; every later one fails in the same way.
  std::unique_ptr<cqil::ExchangeFailure> failed;
};

namespace cqil {

using CreateEnd = std::unique_ptr<cqil_exchange_end> (*)(const cqil_exchange_options& options);

cqil_exchange_status create_end(CreateEnd create, const cqil_exchange_options* options, cqil_exchange_end** out,
                                cqil_exchange_failure* failure) noexcept;

cqil_exchange exchange_table(const char* name, decltype(cqil_exchange::create) create);

// The table of an implementation: all but how an end is created is common.
template <CreateEnd create>
cqil_exchange exchange_table(const char* name) {
  return exchange_table(name, [](const cqil_exchange_options* options, cqil_exchange_end** out,
                                 cqil_exchange_failure* failure) { return create_end(create, options, out, failure); });
}

// Copies text to a place of fixed size. Text that does not fit is cut at the beginning of a UTF-8 character.
void copy_text(char* to, size_t capacity, const std::string& text);
template <size_t N>
void copy_text(char (&to)[N], const std::string& text) {
  copy_text(to, N, text);
}

}  // namespace cqil
