// The exchange between threads, which is the turns and slots of the one between processes over plain memory: exact
// sums, ranks late and ahead, aborts, deadlines, wrong calls. Clean under ThreadSanitizer.
#include "exchange_cases.h"

namespace {

const cqil_exchange* const kMemory = cqil::memory_exchange();

Came create(int rank, int size, const char* address, cqil_exchange_end** end) {
  cqil_exchange_options options = {};
  options.rank = rank, options.size = size, options.address = address;
  cqil_exchange_failure failure = {-1, ""};
  const cqil_exchange_status status = kMemory->create(&options, end, &failure);
  return {status, failure.rank, failure.text};
}

// What cannot become a rank of an exchange is refused with a sentence.
void test_create() {
  cqil_exchange_end* end = nullptr;
  CHECK(create(0, 9, nullptr, &end).status == CQIL_EXCHANGE_INVALID_ARGUMENT, "nine ranks");
  CHECK(create(0, 0, nullptr, &end).status == CQIL_EXCHANGE_INVALID_ARGUMENT, "no rank");
  CHECK(create(2, 2, "memory:1", &end).status == CQIL_EXCHANGE_INVALID_ARGUMENT, "rank 2 of 2");
  CHECK(create(1, 2, nullptr, &end).status == CQIL_EXCHANGE_INVALID_ARGUMENT, "rank 1 without an address");
  CHECK(create(1, 2, "memory:0", &end).status == CQIL_EXCHANGE_UNAVAILABLE, "rank 1 where there is no rank 0");
  CHECK(end == nullptr, "nothing was made");

  cqil_exchange_end* leader = nullptr;
  CHECK(create(0, 3, nullptr, &leader).ok(), "a leader");
  cqil_exchange_state state;
  kMemory->describe(leader, &state);
  CHECK(state.size == 3 && state.rank == 0 && state.strangers == 0, "a leader's state");
  cqil_exchange_end* follower = nullptr;
  CHECK(create(1, 2, state.address, &follower).status == CQIL_EXCHANGE_INVALID_ARGUMENT, "another number of ranks");
  CHECK(create(1, 3, state.address, &follower).ok(), "a follower");
  CHECK(create(1, 3, state.address, &end).status == CQIL_EXCHANGE_INVALID_ARGUMENT, "a rank that has come already");
  const Rank rank(kMemory, follower);
  uint8_t byte = 0, all[3];
  CHECK(rank.gather(&byte, all, 1).status == CQIL_EXCHANGE_INVALID_ARGUMENT, "a gather before the ranks have met");
  const Came came = rank.meet(20 * kMillisecond);
  CHECK(came.status == CQIL_EXCHANGE_RANK_LOST && came.rank == 2, "rank 2 does not come: " + came.text);
  const Came at_leader = Rank(kMemory, leader).meet();
  CHECK(at_leader.status == CQIL_EXCHANGE_RANK_LOST && at_leader.text == came.text, "the leader hears of it");
  kMemory->close(follower);
  kMemory->close(leader);
  CHECK(create(1, 3, state.address, &end).status == CQIL_EXCHANGE_UNAVAILABLE, "nobody is there any more");
  kMemory->close(nullptr);
}

// Wrong arguments harm nothing: the next call is as good as before.
void test_arguments() {
  all_right(run_threads(Made{kMemory}, 2,
                        [](Rank& rank) -> std::string {
                          uint8_t byte = 3, all[2];
                          const Came negative = rank.gather(&byte, all, -1);
                          const Came huge = rank.gather(&byte, all, CQIL_EXCHANGE_MAX_BYTES + 1);
                          const Came nothing = rank.broadcast(nullptr, 1);
                          const Came impatient = rank.gather(&byte, all, 1, -5);
                          for (const Came& came : {negative, huge, nothing, impatient, rank.meet()})
                            if (came.status != CQIL_EXCHANGE_INVALID_ARGUMENT) return told(came);
                          return gather_bytes(rank, 0, 1, false);
                        }),
            "wrong arguments");
}

}  // namespace

int main() {
  const int turns = turns_wanted(100000);
  test_create();
  test_arguments();
  CHECK(cqil::find_exchange("memory") == kMemory && !cqil::find_exchange("carrier pigeon"), "exchanges by name");
  Made made = {kMemory};
  made.slot_bytes = 4096;
  test_exchange([&](int size, const Body& body) { return run_threads(made, size, body); }, turns);
  return check::report("exchange");
}
