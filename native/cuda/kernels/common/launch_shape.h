// How many blocks and threads a launch has; the same on a GPU and on the emulated one.
#pragma once
#include <stdint.h>

namespace cqil::cuda {

struct LaunchShape {
  uint32_t grid_x, grid_y, grid_z;
  uint32_t threads;
  uint32_t shared_bytes;
  bool cooperative;
  bool overlaps;  // may begin before the launch before it has ended: it waits for that by itself (wait_for_launch)
};

}  // namespace cqil::cuda
