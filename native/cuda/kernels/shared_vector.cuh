// A float32 vector staged in shared memory for the warps of a block, n floats, n a multiple of 32. Sixteen-byte quads are permuted
// within runs of eight, so that the strides at which the weight formats read them spread over all banks; the permutation repeats
// after 64 quads. Behind the vector come the sum of each 16 of its floats, and where it is a norm's the sum of the squares of each
// 128 before the norm.
#pragma once
#include "intrinsics.cuh"

namespace cqil::cuda {

constexpr int kSquaresUnit = 128;

struct SharedVector {
  int first;  // quads from the start of shared memory, a multiple of 8
  int sums;   // floats from there

  __device__ __forceinline__ float4* at(int i) const {
    return reinterpret_cast<float4*>(shared_floats()) + first + (i ^ (i >> 3 & 7));
  }
  __device__ __forceinline__ float4 quad(int i) const { return *at(i); }
  // Of floats 16 i ...
  __device__ __forceinline__ float sum16(int i) const { return shared_floats()[sums + i]; }
  // The vector from quad 64 i on.
  __device__ __forceinline__ SharedVector from(int i) const { return {first + 64 * i, sums + 16 * i}; }
};

}  // namespace cqil::cuda
