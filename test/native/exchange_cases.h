// What every exchange must do, whatever it is made of and wherever its ranks run.
#pragma once
#include <cstdlib>

#include "check.h"
#include "exchange_rank.h"

// Runs ranks, as threads or processes, with an exchange; what each found wrong.
using RunRanks = std::function<std::vector<std::string>(int size, const Body& body)>;

inline void all_right(const std::vector<std::string>& wrong, const std::string& what) {
  for (size_t r = 0; r < wrong.size(); r++)
    CHECK(wrong[r] == std::string(), what + ", " + std::to_string(wrong.size()) + " ranks, rank " + std::to_string(r));
}

// Turns of each test: 100,000, or what CQIL_EXCHANGE_TURNS says.
inline int turns_wanted(int usually) {
  const char* text = std::getenv("CQIL_EXCHANGE_TURNS");
  return text ? std::atoi(text) : usually;
}

inline uint8_t byte_of(int turn, int rank, int64_t i) {
  return static_cast<uint8_t>(turn * 31 + rank * 7 + static_cast<int>(i % 251) + 1);
}

// One gather of bytes that differ by turn, rank and place. Returns what is wrong with what came, or nothing.
inline std::string gather_bytes(Rank& rank, int turn, int64_t bytes, bool in_place) {
  std::vector<uint8_t> mine(static_cast<size_t>(bytes)), all(static_cast<size_t>(bytes * rank.size), 0xEE);
  for (int64_t i = 0; i < bytes; i++) mine[static_cast<size_t>(i)] = byte_of(turn, rank.rank, i);
  const uint8_t* from = mine.data();
  if (in_place && bytes > 0) {
    from = all.data() + rank.rank * bytes;
    std::memcpy(all.data() + rank.rank * bytes, mine.data(), static_cast<size_t>(bytes));
  }
  const Came came = rank.gather(from, all.data(), bytes);
  if (!came.ok()) return "turn " + std::to_string(turn) + ": " + told(came);
  for (int r = 0; r < rank.size; r++)
    for (int64_t i = 0; i < bytes; i++)
      if (all[static_cast<size_t>(r * bytes + i)] != byte_of(turn, r, i))
        return "turn " + std::to_string(turn) + " of " + std::to_string(bytes) + " bytes: byte " + std::to_string(i) +
               " of rank " + std::to_string(r);
  return "";
}

inline std::string broadcast_bytes(Rank& rank, int turn, int64_t bytes) {
  std::vector<uint8_t> data(static_cast<size_t>(bytes), 0xEE);
  for (int64_t i = 0; rank.rank == 0 && i < bytes; i++) data[static_cast<size_t>(i)] = byte_of(turn, 0, i);
  const Came came = rank.broadcast(data.data(), bytes);
  if (!came.ok()) return "broadcast " + std::to_string(turn) + ": " + told(came);
  for (int64_t i = 0; i < bytes; i++)
    if (data[static_cast<size_t>(i)] != byte_of(turn, 0, i))
      return "broadcast " + std::to_string(turn) + " of " + std::to_string(bytes) + " bytes: byte " + std::to_string(i);
  return "";
}

// Whole numbers in floats: their sums are exact, whatever their order.
inline void test_sums(const RunRanks& run, int size, int turns) {
  all_right(run(size,
                [turns](Rank& rank) -> std::string {
                  constexpr int kValues = 12;
                  float mine[kValues], all[CQIL_MAX_RANKS * kValues];
                  for (int turn = 0; turn < turns; turn++) {
                    for (int i = 0; i < kValues; i++) mine[i] = static_cast<float>(turn % 1000 + rank.rank * 1000 + i);
                    const Came came = rank.gather(mine, all, sizeof mine);
                    if (!came.ok()) return "turn " + std::to_string(turn) + ": " + told(came);
                    for (int i = 0; i < kValues; i++) {
                      float sum = 0;
                      for (int r = 0; r < rank.size; r++) sum += all[r * kValues + i];
                      const int ranks = rank.size * (rank.size - 1) / 2;
                      if (sum != static_cast<float>(rank.size * (turn % 1000 + i) + 1000 * ranks))
                        return "the sum of turn " + std::to_string(turn);
                    }
                  }
                  return "";
                }),
            "sums of " + std::to_string(turns) + " turns");
}

// Nothing, one byte, odd numbers, exactly a slot and one more, many pieces.
inline void test_sizes(const RunRanks& run, int size) {
  all_right(run(size,
                [](Rank& rank) -> std::string {
                  int turn = 0;
                  for (const int64_t bytes : {0, 1, 7, 1153, 0, 4095, 4096, 4097, 65536, 65537, 1 << 20, 1})
                    for (const bool in_place : {false, true}) {
                      std::string wrong = gather_bytes(rank, turn++, bytes, in_place);
                      if (wrong.empty()) wrong = broadcast_bytes(rank, turn++, bytes);
                      if (!wrong.empty()) return wrong;
                    }
                  return "";
                }),
            "sizes");
}

// Ranks that come late, or are ahead, each by chance, with gathers and broadcasts in one order for all.
inline void test_late_and_ahead(const RunRanks& run, int size, int turns) {
  all_right(run(size,
                [turns](Rank& rank) -> std::string {
                  check::Random common(7), own(static_cast<uint64_t>(rank.rank) + 100);
                  for (int turn = 0; turn < turns; turn++) {
                    const int pause = own.below(12);
                    if (pause == 0) nap(own.below(3000));
                    const int64_t bytes = common.below(9000);
                    const std::string wrong = common.below(2) == 0 ? gather_bytes(rank, turn, bytes, false)
                                                                   : broadcast_bytes(rank, turn, bytes);
                    if (!wrong.empty()) return wrong;
                  }
                  return "";
                }),
            "late and ahead");
}

// The leader gives many broadcasts at once, and closes, before anybody has taken the last.
inline void test_leader_ahead(const RunRanks& run, int size) {
  all_right(run(size,
                [](Rank& rank) -> std::string {
                  for (int turn = 0; turn < 50; turn++) {
                    if (rank.rank > 0) nap(200);
                    const std::string wrong = broadcast_bytes(rank, turn, 3000);
                    if (!wrong.empty()) return wrong;
                  }
                  if (rank.rank == 0) return "";
                  uint8_t byte = 0;
                  const Came came = rank.broadcast(&byte, 1);
                  const bool told_so = came.status == CQIL_EXCHANGE_CLOSED && came.rank == 0;
                  return told_so ? "" : "the leader has closed: " + told(came);
                }),
            "the leader ahead");
}

// Another call, or another size: all ranks hear of it.
inline void test_out_of_step(const RunRanks& run, int size) {
  for (const bool other_size : {true, false})
    all_right(run(size,
                  [other_size](Rank& rank) -> std::string {
                    uint8_t mine[16] = {}, all[CQIL_MAX_RANKS * 16];
                    const bool wrong = rank.rank == rank.size - 1;
                    Came came =
                        wrong && !other_size ? rank.broadcast(mine, 16) : rank.gather(mine, all, wrong ? 15 : 16);
                    if (came.ok()) came = rank.gather(mine, all, 16);
                    const bool told_so = came.status == CQIL_EXCHANGE_OUT_OF_STEP && came.rank >= 0;
                    if (!told_so) return told(came);
                    const Came again = rank.gather(mine, all, 16);
                    return again.status == came.status && again.text == came.text ? "" : "later: " + told(again);
                  }),
              other_size ? "another size" : "another call");
}

// A rank that does not come in time is told of to all who wait, by its number. Where there are more than two ranks, a
// busy machine may delay another one until that is the one told of.
inline void test_deadline(const RunRanks& run, int size) {
  all_right(run(size,
                [](Rank& rank) -> std::string {
                  uint8_t mine = 1, all[CQIL_MAX_RANKS];
                  const int late = rank.size - 1;
                  if (rank.rank == late) {
                    Came came = rank.gather(&mine, all, 1);
                    await_events(late);
                    if (came.ok()) came = rank.gather(&mine, all, 1);
                    return came.status == CQIL_EXCHANGE_RANK_LOST && came.rank > 0 ? "" : "late: " + told(came);
                  }
                  Came came = rank.gather(&mine, all, 1);
                  if (!came.ok()) return told(came);
                  came = rank.gather(&mine, all, 1, rank.rank == 0 ? 200 * kMillisecond : kGenerous);
                  board().events++;
                  const bool told_so = came.status == CQIL_EXCHANGE_RANK_LOST && came.rank > 0;
                  return told_so && (rank.size > 2 || came.rank == late) &&
                                 came.text.find("has not answered for 0.2 s") != std::string::npos
                             ? ""
                             : told(came);
                }),
            "a deadline");
}

// Another thread of one rank ends what all wait for.
inline void test_abort(const RunRanks& run, int size, bool broadcast, int lost) {
  all_right(run(size,
                [=](Rank& rank) -> std::string {
                  uint8_t mine = 1, all[CQIL_MAX_RANKS];
                  const int who = rank.size - 1;
                  std::thread aborts;
                  if (rank.rank == who)
                    aborts = std::thread([&rank, lost] {
                      nap(20 * 1000);
                      rank.abort(lost, "Nobody wants to know.");
                      rank.abort(-1, "A second reason.");
                      board().events++;
                    });
                  // Rank 0 gives nothing, so that everybody waits for it.
                  Came came = {CQIL_EXCHANGE_OK, -1, ""};
                  if (rank.rank > 0) came = broadcast ? rank.broadcast(&mine, 1) : rank.gather(&mine, all, 1);
                  if (aborts.joinable()) aborts.join();
                  if (rank.rank == 0) {
                    await_events(1);
                    came = broadcast ? rank.broadcast(&mine, 1) : rank.gather(&mine, all, 1);
                  }
                  const bool right = came.status == (lost < 0 ? CQIL_EXCHANGE_ABORTED : CQIL_EXCHANGE_RANK_LOST) &&
                                     came.rank == lost && came.text == "Nobody wants to know.";
                  return right ? "" : told(came);
                }),
            broadcast ? "abort in a broadcast" : "abort in a gather");
}

inline void test_exchange(const RunRanks& run, int turns) {
  for (const int size : {1, 2, 4, 8}) {
    test_sums(run, size, turns / (size > 2 ? size : 1));
    test_sizes(run, size);
    if (size == 1) continue;
    test_late_and_ahead(run, size, 300);
    test_leader_ahead(run, size);
    test_out_of_step(run, size);
    test_deadline(run, size);
    for (const bool broadcast : {false, true}) {
      test_abort(run, size, broadcast, -1);
      test_abort(run, size, broadcast, 0);
    }
  }
}
