// The flat list of phases a plan compiles to: what every backend executes and what model.program() shows.
#pragma once
#include <vector>

#include "../backend/backend.h"
#include "plan.h"

namespace cqil {

struct Program {
  std::vector<cqil_phase> phases;
  int32_t n_stages = 0;
  int32_t max_lanes = 1;
  int32_t bypass = 0;
  bool bypass_residual = false;

  // Borrows phases.
  cqil_program view() const;
  // The first layer of each stage. Two programs of one model that have the same differ at most in the bypass.
  std::vector<int32_t> first_layers() const;
};

// Five phases per stage between one embed and one head. Throws INVALID_PLAN when a group does not fit n_layers.
Program compile_program(const Plan& plan, int32_t n_layers);

}  // namespace cqil
