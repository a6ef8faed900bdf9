#include "end.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <exception>
#include <new>

namespace cqil {
namespace {

// Does what a call does and makes a status of what it throws.
template <class Work>
cqil_exchange_status guarded(cqil_exchange_failure* failure, Work work) noexcept {
  auto told = [&](cqil_exchange_status status, int rank, const char* text) {
    if (failure) {
      failure->rank = rank;
      copy_text(failure->text, sizeof failure->text, text);
    }
    return status;
  };
  try {
    work();
    return CQIL_EXCHANGE_OK;
  } catch (const ExchangeFailure& error) {
    return told(error.status, error.rank, error.text.c_str());
  } catch (const std::bad_alloc&) {
    return told(CQIL_EXCHANGE_OUT_OF_MEMORY, -1, "There is not enough memory for an exchange between ranks.");
  } catch (const std::exception& error) {
    return told(CQIL_EXCHANGE_INTERNAL, -1, error.what());
  }
}

// A call on an end: what failed once fails again in the same way.
template <class Work>
cqil_exchange_status on(cqil_exchange_end* end, cqil_exchange_failure* failure, Work work) noexcept {
  return guarded(failure, [&] {
    if (!end) throw ExchangeFailure{CQIL_EXCHANGE_INVALID_ARGUMENT, -1, "There is no end of an exchange to call."};
    if (end->failed) throw *end->failed;
    try {
      work();
    } catch (const ExchangeFailure& error) {
      if (error.status != CQIL_EXCHANGE_INVALID_ARGUMENT) end->failed = std::make_unique<ExchangeFailure>(error);
      throw;
    }
  });
}

void check(bool right, const char* what) {
  if (!right) throw ExchangeFailure{CQIL_EXCHANGE_INVALID_ARGUMENT, -1, what};
}

void check_call(const cqil_exchange_end& end, int64_t bytes, int64_t patience_ns) {
  check(end.met, "Ranks exchange nothing before they have met.");
  check(bytes >= 0 && bytes <= CQIL_EXCHANGE_MAX_BYTES, "One exchange moves 0 to 2^30 bytes of a rank.");
  check(patience_ns >= 0, "The patience of an exchange is negative.");
}

cqil_exchange_status meet(cqil_exchange_end* end, int64_t patience_ns, cqil_exchange_failure* failure) {
  return on(end, failure, [&] {
    check(!end->met, "Ranks meet once.");
    check(patience_ns >= 0, "The patience of an exchange is negative.");
    end->meet(Deadline(patience_ns));
    end->met = true;
  });
}

cqil_exchange_status gather(cqil_exchange_end* end, const void* mine, void* all, int64_t bytes, int64_t patience_ns,
                            cqil_exchange_failure* failure) {
  return on(end, failure, [&] {
    check_call(*end, bytes, patience_ns);
    check(bytes == 0 || (mine && all), "A gather of some bytes has nothing to read or nowhere to write.");
    end->gather(static_cast<const uint8_t*>(mine), static_cast<uint8_t*>(all), bytes, Deadline(patience_ns));
  });
}

cqil_exchange_status broadcast(cqil_exchange_end* end, void* data, int64_t bytes, int64_t patience_ns,
                               cqil_exchange_failure* failure) {
  return on(end, failure, [&] {
    check_call(*end, bytes, patience_ns);
    check(bytes == 0 || data, "A broadcast of some bytes has no data.");
    end->broadcast(static_cast<uint8_t*>(data), bytes, Deadline(patience_ns));
  });
}

void abort(cqil_exchange_end* end, int32_t rank, const char* why) {
  if (end) end->abort(rank >= 0 && rank < end->size ? rank : -1, why ? why : "");
}

void describe(cqil_exchange_end* end, cqil_exchange_state* state) {
  *state = {};
  state->rank = end->rank;
  state->size = end->size;
  end->describe(*state);
}

void close(cqil_exchange_end* end) { delete end; }

}  // namespace

std::string out_of_step(const RankCall& other, const RankCall& own) {
  auto told = [](const RankCall& call) {
    return std::to_string(call.rank) + (call.kind == kGather ? " gathers " : " broadcasts ") +
           std::to_string(call.bytes) + " bytes";
  };
  return "Rank " + told(other) + " where rank " + told(own) + ".";
}

std::chrono::nanoseconds Deadline::left(Clock::time_point now, std::chrono::nanoseconds wanted) const {
  if (end_ == Clock::time_point::max()) return wanted;
  return std::max(std::chrono::nanoseconds(1), std::min(wanted, std::chrono::nanoseconds(end_ - now)));
}

std::string Deadline::patience() const {
  char text[32];
  std::snprintf(text, sizeof text, "%.3g s", static_cast<double>(patience_ns_) / 1e9);
  return text;
}

cqil_exchange_status create_end(CreateEnd create, const cqil_exchange_options* options, cqil_exchange_end** out,
                                cqil_exchange_failure* failure) noexcept {
  return guarded(failure, [&] {
    check(options && out, "An exchange is made without options, or with nowhere to write it.");
    *out = nullptr;
    check(options->size >= 1 && options->size <= CQIL_MAX_RANKS, "An exchange has 1 to 8 ranks.");
    check(options->rank >= 0 && options->rank < options->size,
          "A rank is at least 0 and less than the number of ranks.");
    check(options->rank == 0 || options->address, "Every rank but 0 needs the address of rank 0.");
    *out = create(*options).release();
  });
}

cqil_exchange exchange_table(const char* name, decltype(cqil_exchange::create) create) {
  return {CQIL_EXCHANGE_ABI, name, create, meet, gather, broadcast, abort, describe, close};
}

void copy_text(char* to, size_t capacity, const std::string& text) {
  size_t n = std::min(text.size(), capacity - 1);
  if (n < text.size())
    while (n > 0 && (static_cast<unsigned char>(text[n]) & 0xC0) == 0x80) n--;
  std::memcpy(to, text.data(), n);
  to[n] = 0;
}

}  // namespace cqil
