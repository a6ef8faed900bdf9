// A float32 vector staged in shared memory for the warps of a block. Sixteen-byte quads are permuted within runs of eight, so
// that the strides at which the weight formats read them spread over all banks.
#pragma once
#include "intrinsics.cuh"

namespace cqil::cuda {

struct SharedVector {
  int first;  // quads from the start of shared memory, a multiple of 8

  __device__ __forceinline__ float4* at(int i) const {
    return reinterpret_cast<float4*>(shared_floats()) + first + (i ^ (i >> 3 & 7));
  }
  __device__ __forceinline__ float4 quad(int i) const { return *at(i); }
  __device__ __forceinline__ void set(int i, const float4& value) const { *at(i) = value; }
};

}  // namespace cqil::cuda
