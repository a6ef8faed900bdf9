// How many blocks and threads a launch has; the same on a GPU and on the emulated one.
#pragma once
#include <stdint.h>

namespace cqil::cuda {

struct LaunchShape {
  uint32_t grid_x, grid_y, grid_z;
  uint32_t threads;
  uint32_t shared_bytes;
  bool cooperative;
};

}  // namespace cqil::cuda
