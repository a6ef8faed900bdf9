// How a phase of one token becomes a launch of its own: a kernel for each weight format, and a grid of one block per
// multiprocessor at most, fewer where there are fewer items than warps. The bodies are those of the persistent kernel.
// A block of a launch begins when the multiprocessor's block of the one before has ended, and fills its rings with
// weights before it waits for the others.
#pragma once
#include "cut_shape.h"
#include "gemv.cuh"

namespace cqil::cuda {

// Tells of the launch before this one in its stream. Every kernel waits for it, so what waits for this one waits for
// both.
struct LaunchBefore {
  __device__ __forceinline__ void operator()() const { wait_for_launch(); }
};

// choose(a FormatTag) of a weight format, or of any.
template <class Choose>
auto for_format(int format, Choose choose) {
  switch (format) {
    case CQIL_F32: return choose(FormatTag<CQIL_F32>{});
    case CQIL_F16: return choose(FormatTag<CQIL_F16>{});
    case CQIL_BF16: return choose(FormatTag<CQIL_BF16>{});
    case CQIL_Q8_0: return choose(FormatTag<CQIL_Q8_0>{});
    case CQIL_Q4_0: return choose(FormatTag<CQIL_Q4_0>{});
    case CQIL_Q4_K: return choose(FormatTag<CQIL_Q4_K>{});
    case CQIL_Q5_K: return choose(FormatTag<CQIL_Q5_K>{});
    case CQIL_Q6_K: return choose(FormatTag<CQIL_Q6_K>{});
    default: return choose(FormatTag<kAnyFormat>{});
  }
}

// Gives the kernels of every format the shared memory of a block.
template <class KernelOf>
cudaError_t allow_shared_bytes_of_all(KernelOf kernel_of, int32_t shared_bytes) {
  cudaError_t status = cudaSuccess;
  for (int format = kAnyFormat; format < CQIL_DTYPE_COUNT; format++)
    if (status == cudaSuccess) status = allow_shared_bytes(kernel_of(format), shared_bytes);
  return status;
}

// A grid for `items` items of `each` per block.
inline LaunchShape walk(const Step& step, int64_t items, int each, uint32_t bytes) {
  const int64_t blocks = (items + each - 1) / each;
  const int64_t most = step.multiprocessors;
  return {static_cast<uint32_t>(blocks < most ? blocks : most), 1, 1, kThreads, bytes, false, step.overlaps};
}
inline LaunchShape walk_rows(const Step& step, int64_t warp_items) {
  return walk(step, warp_items, kWarps, shared_bytes(step));
}
inline int64_t half(int64_t n) { return (n + 1) / 2; }
// The launch of cut_products: a block for as many pairs of rows as have a segment for each of its warps.
inline LaunchShape walk_cut(const Step& step, const LaneRange& lanes, int rows, int cols) {
  return walk_rows(step, half(rows) * segments_of(step.model.format, cols) * lanes.n_lanes);
}

}  // namespace cqil::cuda
