#include "exchange.h"

#include "error.h"

namespace cqil {

void check_exchange(cqil_exchange_status status, const cqil_exchange_failure& failure) {
  switch (status) {
    case CQIL_EXCHANGE_OK: return;
    case CQIL_EXCHANGE_INVALID_ARGUMENT: throw Error("INVALID_ARGUMENT", failure.text);
    case CQIL_EXCHANGE_UNAVAILABLE: throw Error("BACKEND_UNAVAILABLE", failure.text);
    case CQIL_EXCHANGE_OUT_OF_MEMORY: throw Error("OUT_OF_MEMORY", failure.text);
    // A rank that gives up, or closes its end while others still compute, is lost to them.
    case CQIL_EXCHANGE_ABORTED:
    case CQIL_EXCHANGE_CLOSED:
    case CQIL_EXCHANGE_RANK_LOST: throw Error("RANK_LOST", failure.text);
    case CQIL_EXCHANGE_OUT_OF_STEP:
    case CQIL_EXCHANGE_INTERNAL: break;
  }
  throw Error("INTERNAL", failure.text);
}

Exchange::Exchange(const cqil_exchange& table, const cqil_exchange_options& options) : table_(table) {
  cqil_exchange_failure failure = {};
  check_exchange(table_.create(&options, &end_, &failure), failure);
}

Exchange::~Exchange() { table_.close(end_); }

cqil_exchange_state Exchange::state() const {
  cqil_exchange_state state = {};
  table_.describe(end_, &state);
  return state;
}

void Exchange::meet(std::chrono::nanoseconds patience) {
  cqil_exchange_failure failure = {};
  check_exchange(table_.meet(end_, patience.count(), &failure), failure);
}

void Exchange::gather(const void* mine, void* all, int64_t bytes, std::chrono::nanoseconds patience) {
  cqil_exchange_failure failure = {};
  check_exchange(table_.gather(end_, mine, all, bytes, patience.count(), &failure), failure);
}

void Exchange::broadcast(void* data, int64_t bytes, std::chrono::nanoseconds patience) {
  cqil_exchange_failure failure = {};
  check_exchange(table_.broadcast(end_, data, bytes, patience.count(), &failure), failure);
}

}  // namespace cqil
