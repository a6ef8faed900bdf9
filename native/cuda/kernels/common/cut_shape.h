// How the rows of attention_out and down are cut (cut.cuh), for the kernels and for the grids that the host gives them.
#pragma once
#include "limits.h"

namespace cqil::cuda {

// Whether a matrix of this number of rows is cut: not where a large GPU's warps take all in one round, as second sums
// would cost more than they even out.
CQIL_HOST_DEVICE inline bool rows_are_cut(int rows) { return rows > 3072; }

// A segment of a row of `cols` weights has 2^shift of them: as few as make at most four segments, but no more than are
// staged at a time. dtype is the format the kernel is compiled for.
CQIL_HOST_DEVICE inline int segment_shift(int dtype, int cols) {
  // The scales of quantized rows begin at 8 bytes every 1024 weights; the layout of a staged vector of floats repeats
  // after 256.
  int shift = dtype == CQIL_F32 || dtype == CQIL_F16 || dtype == CQIL_BF16 ? 8 : 10;
  while ((4 << shift) < cols && (1 << shift) < kPieceFloats) shift++;
  return shift;
}
CQIL_HOST_DEVICE inline int segments_of(int dtype, int cols) {
  const int shift = segment_shift(dtype, cols);
  return (cols + (1 << shift) - 1) >> shift;
}

// Whether a block has room for the sums of a pair of rows of `lanes` lanes. Otherwise the kernels cannot run them.
inline bool cut_sums_fit(const DeviceModel& m, int lanes) {
  if (!rows_are_cut(m.dim)) return true;
  const int attention = segments_of(m.format, m.n_heads * m.head_dim), hidden = segments_of(m.format, m.hidden_dim);
  return lanes <= kPartialSums / (attention > hidden ? attention : hidden);
}

}  // namespace cqil::cuda
