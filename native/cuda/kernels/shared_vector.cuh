// A float32 vector staged in shared memory for the warps of a block, n floats, n a multiple of 32. Sixteen-byte quads are permuted
// within runs of eight, so that the strides at which the weight formats read them spread over all banks. Behind the vector come
// the sum of each 16 of its floats, and where it is a norm's the sum of the squares of each 128 before the norm.
#pragma once
#include "intrinsics.cuh"

namespace cqil::cuda {

constexpr int kSquaresUnit = 128;

struct SharedVector {
  int first;  // quads from the start of shared memory, a multiple of 8
  int n;

  __device__ __forceinline__ float4* at(int i) const {
    return reinterpret_cast<float4*>(shared_floats()) + first + (i ^ (i >> 3 & 7));
  }
  __device__ __forceinline__ float4 quad(int i) const { return *at(i); }
  // Of floats 16 i ...
  __device__ __forceinline__ float* sum16_at(int i) const { return shared_floats() + 4 * first + n + i; }
  __device__ __forceinline__ float sum16(int i) const { return *sum16_at(i); }
  __device__ __forceinline__ float* squares_at(int unit) const { return shared_floats() + 4 * first + n + (n / 16 + 31) / 32 * 32 + unit; }
};

}  // namespace cqil::cuda
