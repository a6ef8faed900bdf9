// Programs: phase counts and order for known plans.
#include "core/program.h"

#include "check.h"

using namespace cqil;

namespace {

Plan uniform(int32_t size, int32_t start, int32_t end) {
  Plan plan;
  for (int32_t first = start; first + size <= end; first += size) plan.groups.push_back({first, size});
  return plan;
}

void test_counts(const char* name, const Plan& plan, int32_t layers, size_t layer_phases) {
  const Program program = compile_program(plan, layers);
  CHECK(program.phases.size() == layer_phases + 2,
        std::string(name) + ": " + std::to_string(program.phases.size() - 2) + " phases");
  CHECK(program.n_stages * 5 == static_cast<int32_t>(layer_phases), std::string(name) + ": stages");
  CHECK(program.phases.front().kind == CQIL_EMBED && program.phases.back().kind == CQIL_HEAD,
        std::string(name) + ": ends");
  std::vector<int> seen(static_cast<size_t>(layers), 0);
  int32_t next = 0;
  for (size_t i = 1; i + 1 < program.phases.size(); i++) {
    const cqil_phase& phase = program.phases[i];
    CHECK(phase.kind == CQIL_QKV + static_cast<int>((i - 1) % 5) && phase.stage == static_cast<int32_t>((i - 1) / 5),
          "order");
    for (int32_t lane = 0; lane < phase.n_lanes; lane++) seen[static_cast<size_t>(phase.first_layer + lane)]++;
    if (phase.kind == CQIL_QKV) {
      CHECK(phase.first_layer == next, "layers in order");
      next += phase.n_lanes;
    }
  }
  for (int count : seen) CHECK(count == 5, std::string(name) + ": every layer has its five phases");
}

}  // namespace

int main() {
  test_counts("7B sequential", Plan{}, 32, 160);
  test_counts("7B P2-S12-E30", uniform(2, 12, 30), 32, 115);
  test_counts("7B P4-S14-E30", uniform(4, 14, 30), 32, 100);
  test_counts("one group of all", uniform(5, 0, 5), 5, 5);
  test_counts("one layer", Plan{}, 1, 5);
  check::throws("INVALID_PLAN", [] { compile_program(uniform(2, 3, 5), 4); }, "past the end");
  check::throws(
      "INVALID_PLAN",
      [] {
        Plan p;
        p.groups = {{0, 2}, {1, 2}};
        compile_program(p, 4);
      },
      "overlap");
  check::throws(
      "INVALID_PLAN",
      [] {
        Plan p;
        p.groups = {{-1, 2}};
        compile_program(p, 4);
      },
      "negative");
  check::throws(
      "INVALID_PLAN",
      [] {
        Plan p;
        p.groups = {{1, 2147483647}};
        compile_program(p, 4);
      },
      "overflow");
  return check::report("program");
}
