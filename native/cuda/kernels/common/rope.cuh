// Rotary position embedding (Su et al. 2021, arXiv 2104.09864): pair i of a head is turned by position * frequency i.
// The pairs are (i, i + head_dim / 2), or (2 i, 2 i + 1) where interleaved.
#pragma once
#include "intrinsics.cuh"
#include "../launch.h"

namespace cqil::cuda {

struct Pair {
  int first, second;  // indices in the head
};
__device__ __forceinline__ Pair rope_pair(const DeviceModel& m, int i) {
  return m.rope_interleaved ? Pair{2 * i, 2 * i + 1} : Pair{i, i + m.head_dim / 2};
}

__device__ __forceinline__ void rotate(const DeviceModel& m, const DeviceWorkspace& s, int position, int i, float& a,
                                       float& b) {
  const int64_t at = static_cast<int64_t>(position) * (m.head_dim / 2) + i;
  const float cos = s.rope_cos[at], sin = s.rope_sin[at];
  const float turned = fmaf(a, cos, -b * sin);
  b = fmaf(a, sin, b * cos);
  a = turned;
}

}  // namespace cqil::cuda
