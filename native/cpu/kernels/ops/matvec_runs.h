// The order in which a product that waits for memory, rather than for arithmetic, reads rows.
#pragma once
#include <stdint.h>

#include <type_traits>

#include "../simd/unroll.h"

namespace cqil {
namespace CQIL_ISA {

// Calls dot(n, first row, bytes between the rows, sums) for n = R rows at a time, and for 1 at the end. R runs of rows
// are read side by side, each in order, which is what hardware prefetchers follow best, and more of them than one run
// would have at work.
template <int R, class Dot>
inline void matvec_runs(const uint8_t* rows, int64_t row_bytes, int64_t n_rows, float* y, Dot dot) {
  const int64_t run = n_rows / R;
  for (int64_t i = 0; i < run; i++) {
    float sums[R];
    dot(std::integral_constant<int, R>(), rows + i * row_bytes, run * row_bytes, sums);
    CQIL_UNROLL for (int r = 0; r < R; r++) y[r * run + i] = sums[r];
  }
  for (int64_t r = run * R; r < n_rows; r++)
    dot(std::integral_constant<int, 1>(), rows + r * row_bytes, row_bytes, y + r);
}

}  // namespace CQIL_ISA
}  // namespace cqil
