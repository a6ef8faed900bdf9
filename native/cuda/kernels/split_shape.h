// How the rows of attention_out and down are cut (split.cuh), for the kernels and for the grids that the host gives them.
#pragma once
#include "limits.h"

namespace cqil::cuda {

// Rows that a large GPU's warps take in one round, two each. So many or fewer are not cut: a second sum would cost more than it evens out.
constexpr int kUncutRows = 3072;

// A segment of a row of `cols` weights has 2^shift of them: all, or as few as make at most four segments, but no more than are staged
// at a time. dtype is the format the kernel is compiled for.
CQIL_HOST_DEVICE inline int segment_shift(int dtype, int rows, int cols) {
  // The scales of quantized rows begin at 8 bytes every 1024 weights; the layout of a staged vector of floats repeats after 256.
  int shift = dtype == CQIL_F32 || dtype == CQIL_F16 || dtype == CQIL_BF16 ? 8 : 10;
  const int most = rows <= kUncutRows ? 1 : 4;
  while ((most << shift) < cols && (1 << shift) < kPieceFloats) shift++;
  return shift;
}
CQIL_HOST_DEVICE inline int segments_of(int dtype, int rows, int cols) {
  const int shift = segment_shift(dtype, rows, cols);
  return (cols + (1 << shift) - 1) >> shift;
}

}  // namespace cqil::cuda
