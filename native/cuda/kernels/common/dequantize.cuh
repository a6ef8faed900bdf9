// Eight neighbouring weights of a row as float32, for tiles of the matrix products of many tokens and for the
// embedding, where the arithmetic that gemv.cuh saves does not matter.
#pragma once
#include "gemv.cuh"

namespace cqil::cuda {

__device__ __forceinline__ float nibble(const uint2& v, int i, int shift) {
  return static_cast<float>((i < 4 ? v.x : v.y) >> (8 * (i & 3) + shift) & 15u);
}
__device__ __forceinline__ uint32_t byte_of(const uint2& v, int i) {
  return (i < 4 ? v.x : v.y) >> (8 * (i & 3)) & 255u;
}

// Weights first … first + 7, first a multiple of 8; zero from the row's end on.
__device__ __forceinline__ void eight_weights(const Matrix& w, int row, int first, float (&out)[8]) {
  const Row r = row_of<kAnyFormat>(w, row);
  const int block = first / 256, in_block = first % 256;
  CQIL_UNROLL for (int i = 0; i < 8; i++) out[i] = 0;
  if (first >= w.cols) return;
  switch (w.dtype) {
    case CQIL_F32:
      CQIL_UNROLL for (int j = 0; j < 2; j++) {
        if (first + 4 * j < w.cols) {
          const uint4 v = load_weights(r.data + static_cast<int64_t>(first + 4 * j) * 4);
          out[4 * j] = float_from_bits(v.x), out[4 * j + 1] = float_from_bits(v.y);
          out[4 * j + 2] = float_from_bits(v.z), out[4 * j + 3] = float_from_bits(v.w);
        }
      }
      return;
    case CQIL_F16:
    case CQIL_BF16: {
      const uint4 v = load_weights(r.data + static_cast<int64_t>(first) * 2);
      CQIL_UNROLL for (int i = 0; i < 4; i++) {
        const uint32_t pair = word(v, i);
        out[2 * i] = w.dtype == CQIL_F16 ? HalvesF16::low(pair) : HalvesBF16::low(pair);
        out[2 * i + 1] = w.dtype == CQIL_F16 ? HalvesF16::high(pair) : HalvesBF16::high(pair);
      }
      return;
    }
    case CQIL_Q8_0: {
      const uint2 v = load_weights8(r.data + first);
      const float d = float_from_half(load_u16(r.scales + first / 32));
      CQIL_UNROLL for (int i = 0; i < 8; i++) out[i] = d * static_cast<float>(static_cast<int8_t>(byte_of(v, i)));
      return;
    }
    case CQIL_Q4_0: {
      const uint2 v = load_weights8(r.data + first / 32 * 16 + first % 16);
      const float d = float_from_half(load_u16(r.scales + first / 32));
      const int shift = first % 32 / 16 * 4;
      CQIL_UNROLL for (int i = 0; i < 8; i++) out[i] = d * (nibble(v, i, shift) - 8.0f);
      return;
    }
    case CQIL_Q4_K:
    case CQIL_Q5_K: {
      const bool five = w.dtype == CQIL_Q5_K;
      const uint8_t* at = r.data + static_cast<int64_t>(block) * (five ? 176 : 144);
      const int j = in_block / 32, run = in_block % 32;
      const uint4 header = load_weights(at);
      const uint2 v = load_weights8(at + (five ? 48 : 16) + j / 2 * 32 + run);
      const uint32_t scales = k_scale_and_min(header, j);
      const float scale =
          float_from_half(static_cast<uint16_t>(header.x & 0xffffu)) * static_cast<float>(scales & 255u);
      const float offset = float_from_half(static_cast<uint16_t>(header.x >> 16)) * static_cast<float>(scales >> 8);
      uint2 fifth = make_uint2(0, 0);
      if (five) fifth = load_weights8(at + 16 + run);
      CQIL_UNROLL for (int i = 0; i < 8; i++) {
        const float q = nibble(v, i, j % 2 * 4) + static_cast<float>((byte_of(fifth, i) >> j & 1u) << 4);
        out[i] = fmaf(scale, q, -offset);
      }
      return;
    }
    default: {
      const uint8_t* at = r.data + static_cast<int64_t>(block) * 208;
      const int half = in_block / 128, quarter = in_block % 128 / 32, run = in_block % 32;
      const uint2 v = load_weights8(at + 64 * half + quarter % 2 * 32 + run),
                  top = load_weights8(at + 128 + 32 * half + run);
      const float scale = float_from_half(load_u16(r.scales + block)) *
                          static_cast<float>(static_cast<int8_t>(at[192 + in_block / 16]));
      CQIL_UNROLL for (int i = 0; i < 8; i++) {
        const float q =
            nibble(v, i, quarter / 2 * 4) + static_cast<float>((byte_of(top, i) >> (2 * quarter) & 3u) << 4);
        out[i] = scale * (q - 32.0f);
      }
    }
  }
}

}  // namespace cqil::cuda
