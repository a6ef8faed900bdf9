// Holds schedules against what they must be: every lane of every phase is computed once, and by nobody before what it
// reads is there.
#include "core/schedule.h"

#include <algorithm>

#include "check.h"
#include "small_model.h"

using namespace cqil;

namespace {

constexpr int32_t kLayers = 6;

struct Threads {
  int32_t total;
  // Whether a thread computes a step.
  bool compute(const cqil_step& step, int32_t thread) const {
    if (thread % step.n_crews != step.crew) return false;
    return !step.alone || thread / step.n_crews == 0;
  }
  // Whether two threads meet at the end of a step.
  bool meet(const cqil_step& step, int32_t a, int32_t b) const {
    if (step.then == CQIL_EVERYBODY) return true;
    return step.then == CQIL_CREW && !step.alone && a % step.n_crews == step.crew && b % step.n_crews == step.crew;
  }
};

// Whether all who compute step `to` know that step `from` has ended.
bool follows(const std::vector<cqil_step>& steps, const Threads& threads, size_t from, size_t to) {
  for (int32_t a = 0; a < threads.total; a++)
    for (int32_t b = 0; b < threads.total; b++) {
      if (a == b || !threads.compute(steps[from], a) || !threads.compute(steps[to], b)) continue;
      bool met = false;
      for (size_t i = from; i < to; i++) met = met || threads.meet(steps[i], a, b);
      if (!met) return false;
    }
  return true;
}

bool covers(const cqil_step& step, int32_t lane) {
  return step.first_lane <= lane && lane < step.first_lane + step.n_lanes;
}

// The step that computes op for a lane of a phase; steps.size() unless there is exactly one.
size_t find(const std::vector<cqil_step>& steps, cqil_op op, int32_t phase, int32_t lane) {
  size_t found = steps.size();
  for (size_t i = 0; i < steps.size(); i++) {
    if (steps[i].op != op || steps[i].phase != phase || !covers(steps[i], lane)) continue;
    if (found < steps.size()) return steps.size();
    found = i;
  }
  return found;
}

// What is wrong with a schedule; empty if nothing is.
std::string fault(const Program& program, const Schedule& schedule, int32_t threads, bool traced, bool post_norms) {
  const std::vector<cqil_step>& steps = schedule.steps;
  const Threads all = {threads};
  for (size_t i = 0; i < steps.size(); i++) {
    const cqil_step& step = steps[i];
    if (step.crew < 0 || step.crew >= step.n_crews || step.n_crews > threads) return "a crew without threads";
    if (step.ends_stage && !step.alone && step.then != CQIL_EVERYBODY) return "a stage ends with a thread elsewhere";
    if (step.then == CQIL_EVERYBODY && i + 1 == steps.size()) return "a meeting that nothing follows";
  }
  size_t x = 0, n_steps = 2;  // the step that wrote x last; steps that were found
  if (steps[0].op != CQIL_OP_EMBED || !steps[0].ends_stage) return "no embedding first";
  for (int32_t i = 1; i + 1 < static_cast<int32_t>(program.phases.size()); i += 5) {
    const cqil_phase& phase = program.phases[static_cast<size_t>(i)];
    const bool apart = find(steps, CQIL_OP_JOIN, i + 4, 0) < steps.size();
    if (post_norms && !apart) return "a sum of what is not normalised";
    const size_t sum = find(steps, apart ? CQIL_OP_JOIN : CQIL_OP_DOWN, i + 4, 0);
    if (sum == steps.size() || steps[sum].n_lanes != phase.n_lanes || !steps[sum].ends_stage) return "no sum";
    std::vector<size_t> attention_out;
    std::vector<size_t> found;
    for (int32_t lane = 0; lane < phase.n_lanes; lane++) {
      std::vector<size_t> chain = {find(steps, CQIL_OP_QKV, i, lane), find(steps, CQIL_OP_ATTENTION, i + 1, lane),
                                   find(steps, CQIL_OP_ATTENTION_OUT, i + 2, lane)};
      if (post_norms) chain.push_back(find(steps, CQIL_OP_ATTENTION_POST_NORM, i + 2, lane));
      attention_out.push_back(chain.back());
      const size_t gate_up = find(steps, CQIL_OP_GATE_UP, i + 3, lane);
      chain.insert(chain.end(), {gate_up, apart ? find(steps, CQIL_OP_DOWN_APART, i + 4, lane) : sum});
      if (post_norms) chain.push_back(find(steps, CQIL_OP_MLP_POST_NORM, i + 4, lane));
      size_t before = x;
      for (size_t step : chain) {
        if (step == steps.size()) return "a lane that is not computed once";
        if (before != step && (before > step || !follows(steps, all, before, step)))
          return "a step that comes too soon";
        before = step;
        found.push_back(step);
      }
      if (before != sum && !follows(steps, all, before, sum)) return "a sum that comes too soon";
      for (int32_t other = std::max(0, lane - program.bypass); other < lane; other++)
        if (!follows(steps, all, attention_out[static_cast<size_t>(other)], gate_up)) return "a bypass too soon";
    }
    found.push_back(sum);
    const size_t recorded = find(steps, CQIL_OP_RECORD, i + 4, 0);
    if ((recorded < steps.size()) != traced) return "a trace where none is wanted, or the reverse";
    if (traced) found.push_back(recorded);
    std::sort(found.begin(), found.end());
    n_steps += static_cast<size_t>(std::unique(found.begin(), found.end()) - found.begin());
    x = sum;
  }
  if (steps.back().op != CQIL_OP_HEAD || !follows(steps, all, x, steps.size() - 1)) return "a head that comes too soon";
  return n_steps == steps.size() ? "" : "steps that nobody needs";
}

void test_every_schedule() {
  const auto model = check::small_model(1);
  std::vector<Plan> plans(4);
  plans[1].groups = {{1, 3}, {4, 2}};
  plans[2].groups = {{0, 6}};
  plans[3].groups = {{0, 2}, {3, 3}};
  int wrong = 0, n = 0;
  for (Plan& plan : plans)
    for (plan.bypass = 0; plan.bypass < 3; plan.bypass++) {
      const Program program = compile_program(plan, kLayers);
      for (int64_t alone : {int64_t{0}, int64_t{100000}, int64_t{300000}, int64_t{1} << 40})
        for (int32_t threads = 1; threads <= 8; threads++)
          for (int way = 0; way < 4; way++)
            for (const Extent& extent :
                 {Extent{0, 1, false}, Extent{7, 1, true}, Extent{0, 5, false}, Extent{3, 5, true}}) {
              cqil_model_options options = {};
              options.alone_bytes = alone;
              Sizes sizes = sizes_of(model->view(), options, CQIL_F16);
              sizes.post_norms = way >= 2;
              Schedule schedule;
              place(program, {way % 2 ? CQIL_LANES : CQIL_WIDE, threads}, sizes, extent, schedule);
              const std::string found = fault(program, schedule, threads, extent.traced, sizes.post_norms);
              n++;
              if (!found.empty() && wrong++ < 5)
                CHECK(found == "", "alone to " + std::to_string(alone) + ", threads " + std::to_string(threads));
            }
    }
  CHECK(wrong == 0 && n == 6144, "every lane once, and after what it reads");
}

// On a device every lane has a stream of its own, and waits for those whose a_j it reads.
void test_streams() {
  Plan plan;
  plan.groups = {{0, 4}, {4, 2}};
  for (plan.bypass = 0; plan.bypass < 4; plan.bypass++) {
    Schedule schedule;
    place(compile_program(plan, kLayers), {CQIL_LANES, 0}, {}, {0, 1, false}, schedule);
    int apart = 0;
    for (const cqil_step& step : schedule.steps) {
      if (step.n_crews == 1) continue;
      apart++;
      CHECK(step.n_lanes == 1 && step.crew == step.first_lane && !step.alone, "a stream for each lane");
      CHECK(step.n_crews == (step.first_layer == 0 ? 4 : 2), "as many streams as lanes");
      const int32_t waits_for = step.op == CQIL_OP_GATE_UP ? std::min(plan.bypass, step.first_lane) : 0;
      CHECK(step.waits_for == waits_for, "waits for the lanes before it, bypass " + std::to_string(plan.bypass));
    }
    CHECK(apart == 5 * kLayers, "every phase of every layer");
  }
}

// What a token reads of a layer decides who computes it, and grows with the text.
void test_alone() {
  const auto model = check::small_model(1);
  cqil_model_options options = {};
  options.alone_bytes = 4 * (2 * 72 * 72 + 2 * 36 * 72 + 3 * 123 * 72) + 3 * 2 * 2 * 18 * 4;
  const Sizes sizes = sizes_of(model->view(), options, CQIL_F32);
  const Program program = compile_program({}, kLayers);
  auto n_alone = [&](const Extent& extent, int32_t threads) {
    Schedule schedule;
    place(program, {CQIL_WIDE, threads}, sizes, extent, schedule);
    return std::count_if(schedule.steps.begin(), schedule.steps.end(),
                         [](const cqil_step& step) { return step.alone; });
  };
  CHECK(n_alone({2, 1, false}, 2) == 5 * kLayers + 2, "three positions: small");
  CHECK(n_alone({3, 1, false}, 2) == 1, "four positions: only the embedding");
  CHECK(n_alone({0, 2, false}, 2) == 0, "two tokens share every step");
  CHECK(n_alone({0, 1, false}, 1) == 0, "one thread needs no word for it");
  Schedule device;
  Plan plan;
  plan.groups = {{1, 4}};
  place(compile_program(plan, kLayers), {CQIL_LANES, 0}, sizes, {0, 1, false}, device);
  const auto lane =
      std::find_if(device.steps.begin(), device.steps.end(), [](const cqil_step& step) { return step.crew == 3; });
  CHECK(lane != device.steps.end() && lane->n_crews == 4 && lane->first_lane == 3,
        "a stream for each lane on a device");
}

}  // namespace

int main() {
  test_every_schedule();
  test_streams();
  test_alone();
  return check::report("schedule");
}
