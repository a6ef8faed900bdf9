// Holds the tuner of `auto` against simulated machines, which give the seconds per token of each way at each time.
#include "core/execution_tuner.h"

#include "check.h"

using namespace cqil;

namespace {

const Way kWide{CQIL_WIDE, 2}, kLanes{CQIL_LANES, 2}, kOne{CQIL_WIDE, 1};

// Two cores, of which another process takes one from time to time.
struct Machine {
  double token = 0.002;            // seconds that a token takes with one thread
  double wide = 0.7, lanes = 0.6;  // what two threads take, as a share of that
  double noise = 0.1;              // the largest random addition, as a share of the time
  bool taken = false;
  check::Random random{1};

  // With one core taken, two threads compute for a scheduler's slice, and then one waits for the other for several
  // slices. When its patience is over, it goes on alone.
  double seconds(const Way& way, double patience) {
    const double share = way.threads == 1 ? 1 : way.execution == CQIL_LANES ? lanes : wide;
    double time = token * share * (1 + noise * std::fabs(random.uniform()));
    if (!taken || way.threads == 1) return time;
    const double slices = time / 0.003;
    const double waiting =
        0.02 * (std::floor(slices) + (std::fabs(random.uniform()) < slices - std::floor(slices) ? 1 : 0));
    if (patience == 0 || time + waiting < patience) return time + waiting;
    return patience + 0.004 + token * (1 - std::min(1.0, patience / (time + waiting)));
  }
};

struct Run {
  double seconds = 0;  // that the tokens took
  double ideal = 0;    // that they would have taken by the best way at each time
  int tokens = 0;
};

// Decodes until `until`.
Run decode(ExecutionTuner& tuner, Machine& machine, double& now, double until) {
  Run run;
  while (now < until) {
    const double seconds = machine.seconds(tuner.next(), tuner.patience());
    now += seconds;
    tuner.record(seconds, now);
    run.seconds += seconds;
    run.ideal +=
        machine.token * (machine.taken ? 1 : std::min({1.0, machine.wide, machine.lanes})) * (1 + machine.noise / 2);
    run.tokens++;
  }
  return run;
}

// When the tuner first takes `way`, and for the next 3 tokens, seconds from now on; 10 if it does not.
double time_until(ExecutionTuner& tuner, Machine& machine, double& now, const Way& way) {
  const double from = now;
  double since = -1;
  for (int held = 0; now < from + 10 && held < 3;) {
    const Way taken = tuner.next();
    if (taken == way && held++ == 0) since = now - from;
    if (!(taken == way)) held = 0;
    const double seconds = machine.seconds(taken, tuner.patience());
    now += seconds;
    tuner.record(seconds, now);
  }
  return now < from + 10 ? since : 10;
}

// Two cores and a busy process that moves between them, as seen on Linux 6.18. Two threads run at full speed for a
// scheduler's slice, and then one of them waits while the process runs for as long. A thread alone is moved to the free
// core, and is now and then held up for a slice, too.
struct SharedCore {
  double token;
  double two = 0.65;     // what two threads take, as a share of what one takes
  double stalls = 0.03;  // slices that one thread is held up, as a share of its slices
  double slice = 0.003;
  double left = 0.003;  // seconds of the present slice
  check::Random random{7};

  double seconds(const Way& way, double patience) {
    double time = token * (way.threads == 1 ? 1 : two) * (1 + 0.1 * std::fabs(random.uniform()));
    left -= time;
    if (left > 0) return time;
    left = slice * (0.7 + 0.6 * std::fabs(random.uniform()));
    if (way.threads == 1) return std::fabs(random.uniform()) < stalls ? time + 2 * slice : time;
    return patience == 0 ? time + slice : std::min(time + slice, std::max(time, patience) + token);
  }
};

std::string named(double token) { return "a token of " + std::to_string(token * 1000) + " ms"; }

// Tokens of a small model and of larger ones.
void test_follows_the_machine() {
  for (double token : {0.0003, 0.001, 0.003, 0.009, 0.02}) {
    Machine machine;
    machine.token = token;
    ExecutionTuner tuner({kWide, kLanes, kOne});
    double now = 1000;
    decode(tuner, machine, now, now + 1);
    CHECK(tuner.settled() == kLanes, named(token) + ": the fastest is found within a second");
    const Run calm = decode(tuner, machine, now, now + 20);
    CHECK(calm.seconds < 1.02 * calm.ideal,
          named(token) + ": trying others takes " + std::to_string(calm.seconds / calm.ideal));

    for (int repeat = 0; repeat < 5; repeat++) {
      machine.taken = true;
      const double left = time_until(tuner, machine, now, kOne);
      CHECK(left < 0.1, named(token) + ": a core is taken, and left after " + std::to_string(left) + " s");
      const Run contended = decode(tuner, machine, now, now + 5);
      CHECK(contended.seconds < contended.ideal / 0.93,
            named(token) + ": with a core taken, " + std::to_string(contended.seconds / contended.ideal));
      machine.taken = false;
      const double back = time_until(tuner, machine, now, kLanes);
      CHECK(back < 2.5, named(token) + ": the core is free again, and used after " + std::to_string(back) + " s");
      decode(tuner, machine, now, now + 3);
    }
  }
}

// The way of one thread is found again after any trial of it that another process has spoilt.
void test_shared_core() {
  for (double token : {0.0005, 0.0007, 0.001})
    for (uint64_t seed = 1; seed <= 40; seed++) {
      ExecutionTuner tuner({kWide, kLanes, kOne});
      Machine free;
      free.token = token;
      free.random = check::Random(seed);
      double now = 0;
      decode(tuner, free, now, 1);
      SharedCore machine{token};
      machine.random = check::Random(seed);
      double spent = 0;
      int tokens = 0;
      for (const double from = now; now < from + 3;) {
        const double seconds = machine.seconds(tuner.next(), tuner.patience());
        now += seconds;
        tuner.record(seconds, now);
        if (now < from + 0.1) continue;
        spent += seconds;
        tokens++;
      }
      // What one thread takes, stalls included.
      const double alone = token * 1.05 * (1 + machine.stalls * 2);
      CHECK(spent / tokens < alone / 0.9, named(token) + ", seed " + std::to_string(seed) + ": on a shared core " +
                                              std::to_string(spent / tokens / alone));
    }
}

void test_one_thread_where_layers_are_small() {
  Machine machine;
  machine.token = 0.0003;
  machine.wide = 1.4;
  machine.lanes = 1.1;
  ExecutionTuner tuner({kWide, kLanes, kOne});
  double now = 0;
  decode(tuner, machine, now, 0.2);
  CHECK(tuner.settled() == kOne, "one thread is faster than two that wait for each other");
  const Run run = decode(tuner, machine, now, 20);
  CHECK(run.seconds < 1.02 * run.ideal, "and stays so: " + std::to_string(run.seconds / run.ideal));
}

// A text that grows takes longer; nothing else is faster for that.
void test_growing_text() {
  Machine machine;
  ExecutionTuner tuner({kWide, kLanes, kOne});
  double now = 0;
  Run whole;
  for (int i = 0; i < 100; i++) {
    machine.token *= 1.03;
    const Run run = decode(tuner, machine, now, now + 0.3);
    whole.seconds += run.seconds;
    whole.ideal += run.ideal;
  }
  CHECK(tuner.settled() == kLanes && whole.seconds < 1.03 * whole.ideal,
        "a text that grows: " + std::to_string(whole.seconds / whole.ideal));
}

void test_given() {
  Machine machine;
  ExecutionTuner right({kWide, kLanes, kOne});
  right.settle({CQIL_PERSISTENT, 2});
  CHECK(!right.settled(), "what is no way of this program is ignored");
  right.settle(kLanes);
  CHECK(right.settled() == kLanes && right.next() == kLanes, "what is given is begun with");
  double now = 50;
  for (int i = 0; i < 30; i++) {
    CHECK(right.next() == kLanes, "and nothing else is tried at once");
    const double seconds = machine.seconds(right.next(), right.patience());
    now += seconds;
    right.record(seconds, now);
  }
  right.settle(kOne);
  CHECK(right.settled() == kLanes, "what comes after the first token is late");

  ExecutionTuner wrong({kWide, kLanes, kOne});
  wrong.settle(kOne);
  now = 0;
  decode(wrong, machine, now, 1);
  CHECK(wrong.settled() == kLanes, "what was given and is slower is given up within a second");

  ExecutionTuner only({kWide});
  for (int i = 0; i < 20; i++) only.record(1, i);
  CHECK(only.next() == kWide && !only.settled(), "a single way is nothing to settle");
}

}  // namespace

int main() {
  test_follows_the_machine();
  test_shared_core();
  test_one_thread_where_layers_are_small();
  test_growing_text();
  test_given();
  return check::report("execution tuner");
}
