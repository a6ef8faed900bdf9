// A plan as it reaches the core: which consecutive layers share an input. Made and validated in lib/plan/plan.ts;
// checked again here only as far as memory safety needs.
#pragma once
#include <cstdint>
#include <vector>

namespace cqil {

struct Group {
  int32_t first;  // layer index
  int32_t size;   // layers, at least 2
};

struct Plan {
  std::vector<Group> groups;     // ascending, disjoint
  int32_t bypass = 0;            // D
  bool bypass_residual = false;  // true in "official" mode
};

}  // namespace cqil
