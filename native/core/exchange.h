// One rank's end of an exchange, as the core uses it: failures are Errors, and it is closed with this object.
#pragma once
#include <chrono>
#include <cstdint>

#include "../backend/exchange.h"

namespace cqil {

class Exchange {
 public:
  // Throws what check_exchange throws, as meet, gather and broadcast do.
  Exchange(const cqil_exchange& table, const cqil_exchange_options& options);
  ~Exchange();
  Exchange(const Exchange&) = delete;

  const cqil_exchange& table() const { return table_; }
  cqil_exchange_end* end() const { return end_; }
  cqil_exchange_state state() const;
  // A patience of zero means to wait for ever.
  void meet(std::chrono::nanoseconds patience);
  void gather(const void* mine, void* all, int64_t bytes, std::chrono::nanoseconds patience);
  void broadcast(void* data, int64_t bytes, std::chrono::nanoseconds patience);
  // See cqil_exchange. From any thread.
  void abort(int32_t rank, const char* why) { table_.abort(end_, rank, why); }

 private:
  const cqil_exchange& table_;
  cqil_exchange_end* end_ = nullptr;
};

// Throws INVALID_ARGUMENT, BACKEND_UNAVAILABLE, OUT_OF_MEMORY, RANK_LOST or INTERNAL.
void check_exchange(cqil_exchange_status status, const cqil_exchange_failure& failure);

}  // namespace cqil
