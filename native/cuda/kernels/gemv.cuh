// Products of weight rows with a vector in shared memory: two rows a warp, float32 sums.
// Bytes: every weight once, as stored; x from shared memory, 4 bytes for each weight pair of the two rows. FLOPs: 2 per weight.
// In flight: 2 rows x kUnroll chunks x 16 bytes a thread, so with 12 warps on a multiprocessor 48 KiB (F32, F16, BF16), 36
// (Q8_0, Q4_0) or 24 (the K formats), where about 30 KiB hide the latency of the memory. A value's sum runs over thread l's chunks l, l + 32, … and then a butterfly: its order depends on the
// length alone, whatever grid, lanes and launches the row is computed by.
#pragma once
#include "block.cuh"
#include "weights.cuh"

namespace cqil::cuda {

struct Row {
  const uint8_t* data;
  const uint16_t* scales;
};

__device__ __forceinline__ int scale_block(int dtype) { return dtype == CQIL_Q6_K ? 256 : 32; }

__device__ __forceinline__ Row row_of(const Matrix& w, int row) {
  const uint16_t* scales = w.scales ? w.scales + static_cast<int64_t>(row) * (w.cols / scale_block(w.dtype)) : nullptr;
  return {w.data + row * w.row_bytes, scales};
}

struct RowSums {
  float of[kRows];
};

template <int D>
__device__ __forceinline__ RowSums dot_format(Row a, Row b, int first, int count, const SharedVector& x) {
  using F = Format<D>;
  const int first_chunk = first / F::kWeights, chunks = (count + F::kWeights - 1) / F::kWeights;
  float sums[kRows] = {};
  for (int base = lane_id(); base < chunks; base += kWarpSize * F::kUnroll) {
    typename F::Chunk chunk[F::kUnroll][kRows];
    // Past the end the last chunk is read again: registers that some path leaves unset would be taken throughout the kernel.
    CQIL_UNROLL for (int u = 0; u < F::kUnroll; u++) {
      const int at = first_chunk + min(base + kWarpSize * u, chunks - 1);
      chunk[u][0] = F::load(a.data, a.scales, at);
      chunk[u][1] = F::load(b.data, b.scales, at);
    }
    CQIL_UNROLL for (int u = 0; u < F::kUnroll; u++)
      if (base + kWarpSize * u < chunks) {
        keep_order();
        F::add_dot(chunk[u], base + kWarpSize * u, x, sums);
      }
  }
  return {{warp_sum(sums[0]), warp_sum(sums[1])}};
}

// Rows a and b of the same format times x, over weights first … first + count - 1, x beginning at weight `first`; first is a
// multiple of 256. The sums are in every thread of the warp.
__device__ __forceinline__ RowSums dot_rows(int dtype, Row a, Row b, int first, int count, int x_first_quad) {
  const SharedVector x{x_first_quad};
  switch (dtype) {
    case CQIL_F32: return dot_format<CQIL_F32>(a, b, first, count, x);
    case CQIL_F16: return dot_format<CQIL_F16>(a, b, first, count, x);
    case CQIL_BF16: return dot_format<CQIL_BF16>(a, b, first, count, x);
    case CQIL_Q8_0: return dot_format<CQIL_Q8_0>(a, b, first, count, x);
    case CQIL_Q4_0: return dot_format<CQIL_Q4_0>(a, b, first, count, x);
    case CQIL_Q4_K: return dot_format<CQIL_Q4_K>(a, b, first, count, x);
    case CQIL_Q5_K: return dot_format<CQIL_Q5_K>(a, b, first, count, x);
    default: return dot_format<CQIL_Q6_K>(a, b, first, count, x);
  }
}

// Rows r0 and r1 of one matrix; the second may lie beyond its end and is then the first again.
__device__ __forceinline__ RowSums dot_two(const Matrix& w, int r0, int r1, int first, int count, const SharedVector& x) {
  return dot_rows(w.dtype, row_of(w, r0), row_of(w, r1 < w.rows ? r1 : r0), first, count, x.first);
}

// Asks L2 for the first 4 KiB of a row that this warp will read next.
__device__ __forceinline__ void prefetch_row(const Matrix& w, int row) {
  const int64_t at = 128 * lane_id();
  if (at < w.row_bytes) prefetch_to_l2(w.data + row * w.row_bytes + at);
}

}  // namespace cqil::cuda
