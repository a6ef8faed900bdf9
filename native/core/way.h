// How a program may run.
#pragma once
#include "../backend/backend.h"

namespace cqil {

struct Way {
  cqil_execution execution;
  int32_t threads;  // how many compute it; 0 where a device does
  bool operator==(const Way& other) const { return execution == other.execution && threads == other.threads; }
};

}  // namespace cqil
