// The team and its barrier: everyone runs once, nobody passes early, and more threads than cores only cost time.
#include "cpu/team.h"

#include <chrono>

#include "check.h"

using namespace cqil;

namespace {

void test_everyone_runs_once(int threads) {
  Team team(threads);
  CHECK(team.size() == threads, "team of " + std::to_string(threads));
  for (int run = 0; run < 200; run++) {
    std::vector<std::atomic<int>> calls(static_cast<size_t>(threads));
    team.run(team.size(), [&](int member) { calls[static_cast<size_t>(member)]++; });
    bool once = true;
    for (auto& count : calls) once = once && count == 1;
    if (!once) return CHECK(false, "a member ran twice or not at all");
  }
  CHECK(true, "");
}

// A run that needs fewer members leaves the others alone.
void test_some_run() {
  Team team(4);
  for (int run = 0; run < 400; run++) {
    const int members = run % 5 + 1;  // one more than there are is all
    std::vector<std::atomic<int>> calls(4);
    team.run(members, [&](int member) { calls[static_cast<size_t>(member)]++; });
    bool right = true;
    for (int member = 0; member < 4; member++)
      right = right && calls[static_cast<size_t>(member)] == (member < members ? 1 : 0);
    if (!right) return CHECK(false, "a run of " + std::to_string(members) + " of 4 members");
  }
  CHECK(true, "");
}

// Each member writes its slot before the barrier and reads all slots after it.
void test_barrier(int threads, int rounds, bool with_delays) {
  Team team(threads);
  Barrier barrier(team.size());
  std::vector<int> slots(static_cast<size_t>(threads), -1);  // plain ints: the barrier itself must order them
  std::atomic<int> wrong{0};
  team.run(team.size(), [&](int member) {
    check::Random random(static_cast<uint64_t>(member) + 1);
    for (int round = 0; round < rounds; round++) {
      if (with_delays && random.below(4) == 0)
        std::this_thread::sleep_for(std::chrono::microseconds(random.below(400)));
      slots[static_cast<size_t>(member)] = round;
      barrier.wait();
      for (int slot : slots) wrong += slot != round;
      barrier.wait();
    }
  });
  CHECK(wrong == 0, "barrier of " + std::to_string(threads));
}

}  // namespace

int main() {
  for (int threads : {1, 2, 3, 8}) test_everyone_runs_once(threads);
  test_some_run();
  test_barrier(2, 20000, false);
  test_barrier(3, 2000, false);
  test_barrier(5, 300, true);
  test_barrier(16, 50, true);
  // Long pauses between runs: the members are parked and must wake.
  Team team(3);
  std::atomic<int> total{0};
  for (int i = 0; i < 20; i++) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    team.run(team.size(), [&](int) { total++; });
  }
  CHECK(total == 60, "parked members wake");
  return check::report("team");
}
