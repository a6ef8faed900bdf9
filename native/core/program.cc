#include "program.h"

#include <algorithm>
#include <string>

#include "error.h"

namespace cqil {

cqil_program Program::view() const {
  return {phases.data(), static_cast<int32_t>(phases.size()), n_stages, max_lanes, bypass, bypass_residual ? 1 : 0};
}

std::vector<int32_t> Program::first_layers() const {
  std::vector<int32_t> layers;
  for (const cqil_phase& phase : phases)
    if (phase.kind == CQIL_QKV) layers.push_back(phase.first_layer);
  return layers;
}

Program compile_program(const Plan& plan, int32_t n_layers) {
  Program program;
  program.bypass = plan.bypass;
  program.bypass_residual = plan.bypass_residual;
  auto add_stage = [&](int32_t first_layer, int32_t n_lanes) {
    for (cqil_phase_kind kind : {CQIL_QKV, CQIL_ATTENTION, CQIL_ATTENTION_OUT, CQIL_GATE_UP, CQIL_DOWN})
      program.phases.push_back({kind, program.n_stages, first_layer, n_lanes});
    program.n_stages++;
    program.max_lanes = std::max(program.max_lanes, n_lanes);
  };

  program.phases.push_back({CQIL_EMBED, -1, 0, 0});
  int32_t layer = 0;
  for (const Group& group : plan.groups) {
    if (group.size < 1 || group.first < layer || group.first > n_layers - group.size)
      throw Error("INVALID_PLAN", "The group of " + std::to_string(group.size) + " layers at layer " +
                                      std::to_string(group.first) + " overlaps another or leaves the model's " +
                                      std::to_string(n_layers) + " layers.");
    while (layer < group.first) add_stage(layer++, 1);
    add_stage(group.first, group.size);
    layer += group.size;
  }
  while (layer < n_layers) add_stage(layer++, 1);
  program.phases.push_back({CQIL_HEAD, -1, 0, 0});
  return program;
}

}  // namespace cqil
