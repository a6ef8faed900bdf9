// Sums of lanes.
#pragma once
#include "unroll.h"

namespace cqil {
namespace CQIL_ISA {

// y[r] = the sum of sum[r]'s lanes.
template <int R>
inline void store_sums(const F32x16* sum, float* y) {
  if constexpr (R % 4 == 0) CQIL_UNROLL for (int r = 0; r < R; r += 4) reduce_add4(sum + r, y + r);
  else CQIL_UNROLL for (int r = 0; r < R; r++) y[r] = reduce_add(sum[r]);
}

}  // namespace CQIL_ISA
}  // namespace cqil
