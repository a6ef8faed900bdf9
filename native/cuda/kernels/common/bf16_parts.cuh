// A float32 as a sum of bf16 parts, v = hi + lo with lo = bf16(v - hi) and so on, for products on tensor cores.
#pragma once
#include "intrinsics.cuh"

namespace cqil::cuda {

// Eight values as kParts bf16 parts, to tile[part] at the same place; `part_stride` in words.
template <int kParts>
__device__ __forceinline__ void store_parts(uint32_t* tile, int part_stride, int at, float (&v)[8]) {
  CQIL_UNROLL for (int part = 0; part < kParts; part++) {
    uint32_t pairs[4];
    CQIL_UNROLL for (int i = 0; i < 4; i++) {
      pairs[i] = bf16_pair(v[2 * i], v[2 * i + 1]);
      v[2 * i] -= float_from_bits(pairs[i] << 16);
      v[2 * i + 1] -= float_from_bits(pairs[i] & 0xffff0000u);
    }
    *reinterpret_cast<uint4*>(tile + part * part_stride + at) = make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]);
  }
}

}  // namespace cqil::cuda
