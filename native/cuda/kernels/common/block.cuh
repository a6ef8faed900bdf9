// A phase's work, spread over a grid whose blocks all have kThreads threads: one block per multiprocessor, so that what
// a block stages in shared memory is staged once. The same bodies run as kernels of their own and inside the persistent
// kernel.
#pragma once
#include "intrinsics.cuh"
#include "limits.h"

namespace cqil::cuda {

__device__ __forceinline__ int warp_id() { return static_cast<int>(threadIdx.x) / kWarpSize; }
__device__ __forceinline__ int lane_id() { return static_cast<int>(threadIdx.x) % kWarpSize; }

// Neighbouring items go to different multiprocessors, so that what does not fill a round is spread evenly.
__device__ __forceinline__ int grid_warp() {
  return warp_id() * static_cast<int>(gridDim.x) + static_cast<int>(blockIdx.x);
}
__device__ __forceinline__ int grid_warps() { return kWarps * static_cast<int>(gridDim.x); }

__device__ __forceinline__ float* reduce_floats() { return shared_floats(); }
__device__ __forceinline__ float* partial_sums() { return shared_floats() + kPartialsAt; }
// What follows: staged vectors, or whatever else a kernel keeps.
__device__ __forceinline__ float* scratch_floats() { return shared_floats() + kReduceFloats; }

__device__ __forceinline__ float warp_sum(float value) {
  CQIL_UNROLL for (int mask = kWarpSize / 2; mask > 0; mask /= 2) value += shuffle_xor(value, mask);
  return value;
}
__device__ __forceinline__ float warp_max(float value) {
  CQIL_UNROLL for (int mask = kWarpSize / 2; mask > 0; mask /= 2) value = fmaxf(value, shuffle_xor(value, mask));
  return value;
}

// The sum over the block, in every thread. Two calls in a row pass turns 0 and 1: one barrier is then enough.
__device__ __forceinline__ float block_sum(float value, int turn) {
  float* sums = reduce_floats() + kWarps * (turn & 1);
  value = warp_sum(value);
  if (lane_id() == 0) sums[warp_id()] = value;
  sync_block();
  float total = 0;
  CQIL_UNROLL for (int i = 0; i < kWarps; i++) total += sums[i];
  return total;
}

}  // namespace cqil::cuda
