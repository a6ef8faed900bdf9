// How each weight format is read by a product of one token: a row is a run of chunks of about 16 bytes, one for each thread of a
// warp in turn. 32 chunks of two rows are a part, which lies in shared memory as the rows do: kRowBytes of each row, then
// kScaleBytes of the scales of each, where they have a plane of their own. Every format is a struct with
//   kWeights        weights per chunk
//   kRowBytes, kScaleBytes
//   kSlots          how many stages a ring of weights has, of one part each or more
//   Chunk           a chunk's registers
//   load(row, scales, chunk)          of a part; chunk 0 ... 31
//   add_dot(chunks, index, x, sums)   sums[r] += chunk r . x for kRows rows that share x; index is the chunk's place after x's first
//
// Nibbles become floats without a conversion instruction, which runs at an eighth of the rate of the rest: a value q of b <= 7
// bits put under the exponent of 1.0 is v = 1 + q / 2^b, one byte permutation for each weight. Then
//   sum q x = 2^b (sum v x - sum x),
// and sum x was taken when x was staged. Block layouts are those of GGUF as repacked by pack.h.
#pragma once
#include "intrinsics.cuh"
#include "launch.h"
#include "shared_vector.cuh"

namespace cqil::cuda {

// Rows that one warp multiplies at a time: two, so that x is read from shared memory half as often.
constexpr int kRows = 2;

// 1 + byte i of t's low seven bits / 128; its top bit must be set.
__device__ __forceinline__ float unit_float(uint32_t t, int i) {
  return float_from_bits(select_bytes(t, 0x3f000000u, 0x7044u | static_cast<uint32_t>(i) << 8));
}
// Byte i of t less `offset`, exact.
__device__ __forceinline__ float byte_float(uint32_t t, int i, float offset = 0.0f) {
  return float_from_bits(select_bytes(t, 0x4b000000u, 0x7440u | static_cast<uint32_t>(i))) - (8388608.0f + offset);
}
__device__ __forceinline__ float add_dot4(float sum, float a, float b, float c, float d, const float4& x) {
  sum = fmaf(a, x.x, sum);
  sum = fmaf(b, x.y, sum);
  sum = fmaf(c, x.z, sum);
  return fmaf(d, x.w, sum);
}
__device__ __forceinline__ float add_units(float sum, uint32_t t, const float4& x) {
  return add_dot4(sum, unit_float(t, 0), unit_float(t, 1), unit_float(t, 2), unit_float(t, 3), x);
}
__device__ __forceinline__ uint4 shared_words(const uint8_t* at) { return *reinterpret_cast<const uint4*>(at); }
__device__ __forceinline__ uint32_t word(const uint4& v, int i) { return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w; }

template <int D>
struct Format;

// Formats whose chunks are the 16 bytes of a row in turn.
struct PlainChunks {
  static constexpr int kRowBytes = 32 * 16, kScaleBytes = 0, kSlots = 4;
  // Of both planes, in a row of so many chunks.
  __device__ static __forceinline__ int row_bytes(int chunks) { return 16 * chunks; }
  __device__ static __forceinline__ int scale_bytes(int) { return 0; }
  using Chunk = uint4;
  __device__ static __forceinline__ Chunk load(const uint8_t* row, const uint16_t*, int chunk) { return shared_words(row + 16 * chunk); }
};
// Sixteen bytes of quants, and the scale of their block.
struct ScaledChunk {
  uint4 q;
  uint16_t d;
};

template <>
struct Format<CQIL_F32> : PlainChunks {
  static constexpr int kWeights = 4;
  __device__ static __forceinline__ void add_dot(const Chunk (&c)[kRows], int index, const SharedVector& x, float (&sums)[kRows]) {
    const float4 v = x.quad(index);
    CQIL_UNROLL for (int r = 0; r < kRows; r++)
      sums[r] = add_dot4(sums[r], float_from_bits(c[r].x), float_from_bits(c[r].y), float_from_bits(c[r].z), float_from_bits(c[r].w), v);
  }
};

// Both 16-bit formats: eight weights; Halves gives the float of the low and of the high half of a word.
template <class Halves>
struct Format16 : PlainChunks {
  static constexpr int kWeights = 8;
  __device__ static __forceinline__ void add_dot(const Chunk (&c)[kRows], int index, const SharedVector& x, float (&sums)[kRows]) {
    const float4 a = x.quad(2 * index), b = x.quad(2 * index + 1);
    CQIL_UNROLL for (int r = 0; r < kRows; r++) {
      sums[r] = add_dot4(sums[r], Halves::low(c[r].x), Halves::high(c[r].x), Halves::low(c[r].y), Halves::high(c[r].y), a);
      sums[r] = add_dot4(sums[r], Halves::low(c[r].z), Halves::high(c[r].z), Halves::low(c[r].w), Halves::high(c[r].w), b);
    }
  }
};
struct HalvesF16 {
  __device__ static __forceinline__ float low(uint32_t w) { return float_from_half(static_cast<uint16_t>(w & 0xffffu)); }
  __device__ static __forceinline__ float high(uint32_t w) { return float_from_half(static_cast<uint16_t>(w >> 16)); }
};
struct HalvesBF16 {
  __device__ static __forceinline__ float low(uint32_t w) { return float_from_bits(w << 16); }
  __device__ static __forceinline__ float high(uint32_t w) { return float_from_bits(w & 0xffff0000u); }
};
template <>
struct Format<CQIL_F16> : Format16<HalvesF16> {};
template <>
struct Format<CQIL_BF16> : Format16<HalvesBF16> {};

// Half a block: 16 x int8 q, w = d q.
template <>
struct Format<CQIL_Q8_0> : PlainChunks {
  static constexpr int kWeights = 16, kScaleBytes = 32, kSlots = 3;
  __device__ static __forceinline__ int scale_bytes(int chunks) { return chunks; }
  using Chunk = ScaledChunk;
  __device__ static __forceinline__ Chunk load(const uint8_t* row, const uint16_t* scales, int chunk) {
    return {shared_words(row + 16 * chunk), scales[chunk / 2]};
  }
  __device__ static __forceinline__ void add_dot(const Chunk (&c)[kRows], int index, const SharedVector& x, float (&sums)[kRows]) {
    float dot[kRows] = {};
    CQIL_UNROLL for (int i = 0; i < 4; i++) {
      const float4 v = x.quad(4 * index + i);
      CQIL_UNROLL for (int r = 0; r < kRows; r++) {
        const uint32_t t = word(c[r].q, i) ^ 0x80808080u;  // q + 128
        dot[r] = add_dot4(dot[r], byte_float(t, 0, 128.0f), byte_float(t, 1, 128.0f), byte_float(t, 2, 128.0f), byte_float(t, 3, 128.0f), v);
      }
    }
    CQIL_UNROLL for (int r = 0; r < kRows; r++) sums[r] = fmaf(float_from_half(c[r].d), dot[r], sums[r]);
  }
};

// A block: weight i in the low nibble of byte i, weight 16 + i in its high nibble, w = d (q - 8).
template <>
struct Format<CQIL_Q4_0> : PlainChunks {
  static constexpr int kWeights = 32, kScaleBytes = 64, kSlots = 3;
  __device__ static __forceinline__ int scale_bytes(int chunks) { return 2 * chunks; }
  using Chunk = ScaledChunk;
  __device__ static __forceinline__ Chunk load(const uint8_t* row, const uint16_t* scales, int chunk) {
    return {shared_words(row + 16 * chunk), scales[chunk]};
  }
  __device__ static __forceinline__ void add_dot(const Chunk (&c)[kRows], int index, const SharedVector& x, float (&sums)[kRows]) {
    float low_dot[kRows] = {}, high_dot[kRows] = {};
    const float total = x.sum16(2 * index) + x.sum16(2 * index + 1);
    CQIL_UNROLL for (int i = 0; i < 4; i++) {
      const float4 low = x.quad(8 * index + i), high = x.quad(8 * index + 4 + i);
      CQIL_UNROLL for (int r = 0; r < kRows; r++) {
        const uint32_t w = word(c[r].q, i);
        low_dot[r] = add_units(low_dot[r], (w << 3 & 0x78787878u) | 0x80808080u, low);
        high_dot[r] = add_units(high_dot[r], (w >> 1 & 0x78787878u) | 0x80808080u, high);
      }
    }
    CQIL_UNROLL for (int r = 0; r < kRows; r++)
      sums[r] = fmaf(16.0f * float_from_half(c[r].d), fmaf(-1.5f, total, low_dot[r] + high_dot[r]), sums[r]);
  }
};

// Scale (low byte) and minimum (next byte) j of a Q4_K or Q5_K header: six bits each in 12 bytes, 0-3 in the low bits of bytes
// 0-7, 4-7 in the nibbles of bytes 8-11 with their top two bits above those of bytes 0-7.
__device__ __forceinline__ uint32_t k_scale_and_min(const uint4& header, int j) {
  const int shift = 8 * (j & 3);
  const uint32_t a = header.y >> shift, b = header.z >> shift, c = header.w >> shift;
  if (j < 4) return (a & 63u) | (b & 63u) << 8;
  return (c & 15u) | (a >> 2 & 48u) | ((c >> 4 & 15u) | (b >> 2 & 48u)) << 8;
}

// Two runs of 16 weights that share their bytes, of a block of 256: w = d scale q - dmin min. Chunk e of a block holds the low
// and the high nibbles of quant bytes 16 e …, which are weights 64 (e / 2) + 16 (e % 2) … and those 32 further on.
template <int kBits>
struct FormatK45 {
  static constexpr int kBlockBytes = kBits == 4 ? 144 : 176;
  static constexpr int kWeights = 32, kRowBytes = 4 * kBlockBytes, kScaleBytes = 0, kSlots = 3;
  __device__ static __forceinline__ int row_bytes(int chunks) { return chunks / 8 * kBlockBytes; }
  __device__ static __forceinline__ int scale_bytes(int) { return 0; }
  struct Chunk {
    uint4 header, q;
    uint4 fifth;  // of Q5_K
  };
  __device__ static __forceinline__ Chunk load(const uint8_t* row, const uint16_t*, int chunk) {
    const uint8_t* block = row + chunk / 8 * kBlockBytes;
    const int e = chunk % 8;
    Chunk c;
    c.header = shared_words(block);
    c.q = shared_words(block + (kBits == 4 ? 16 : 48) + 16 * e);
    c.fifth = kBits == 4 ? c.q : shared_words(block + 16 + 16 * (e % 2));
    return c;
  }
  // Byte-wise q << (7 - kBits) | 0x80.
  __device__ static __forceinline__ uint32_t units(uint32_t nibbles, uint32_t fifth, int bit) {
    if (kBits == 4) return nibbles << 3 | 0x80808080u;
    return nibbles << 2 | (fifth >> bit & 0x01010101u) << 6 | 0x80808080u;
  }
  __device__ static __forceinline__ void add_dot(const Chunk (&c)[kRows], int index, const SharedVector& x, float (&sums)[kRows]) {
    const int e = index % 8, pair = e / 2;
    const int quad = index / 8 * 64 + pair * 16 + e % 2 * 4;
    float low_dot[kRows] = {}, high_dot[kRows] = {};
    const float low_total = x.sum16(quad / 4), high_total = x.sum16(quad / 4 + 2);
    CQIL_UNROLL for (int i = 0; i < 4; i++) {
      const float4 low = x.quad(quad + i), high = x.quad(quad + 8 + i);
      CQIL_UNROLL for (int r = 0; r < kRows; r++) {
        const uint32_t w = word(c[r].q, i), fifth = word(c[r].fifth, i);
        low_dot[r] = add_units(low_dot[r], units(w & 0x0f0f0f0fu, fifth, 2 * pair), low);
        high_dot[r] = add_units(high_dot[r], units(w >> 4 & 0x0f0f0f0fu, fifth, 2 * pair + 1), high);
      }
    }
    CQIL_UNROLL for (int r = 0; r < kRows; r++) {
      const float d = float_from_half(static_cast<uint16_t>(c[r].header.x & 0xffffu));
      const float dmin = float_from_half(static_cast<uint16_t>(c[r].header.x >> 16));
      const uint32_t low = k_scale_and_min(c[r].header, 2 * pair), high = k_scale_and_min(c[r].header, 2 * pair + 1);
      constexpr float kLevels = 1 << kBits;
      const float scaled = byte_float(low, 0) * (low_dot[r] - low_total) + byte_float(high, 0) * (high_dot[r] - high_total);
      const float minima = byte_float(low, 1) * low_total + byte_float(high, 1) * high_total;
      sums[r] = fmaf(kLevels * d, scaled, fmaf(-dmin, minima, sums[r]));
    }
  }
};
template <>
struct Format<CQIL_Q4_K> : FormatK45<4> {};
template <>
struct Format<CQIL_Q5_K> : FormatK45<5> {};

// Blocks of 256 in 208 bytes: 128 of low nibbles, 64 of high bit pairs, 16 x int8 scales; w = d scale (q - 32). Chunk e of a
// block holds nibble bytes 16 e …: with half = e / 4, group = e / 2 % 2 their low nibbles are weights
// 128 half + 32 group + 16 (e % 2) … and their high nibbles those 64 further on.
template <>
struct Format<CQIL_Q6_K> {
  static constexpr int kWeights = 32, kRowBytes = 4 * 208, kScaleBytes = 8, kSlots = 2;
  __device__ static __forceinline__ int row_bytes(int chunks) { return chunks / 8 * 208; }
  __device__ static __forceinline__ int scale_bytes(int chunks) { return chunks / 8 * 2; }
  struct Chunk {
    uint4 q, top;
    uint16_t d;
    uint8_t low_scale, high_scale;
  };
  __device__ static __forceinline__ Chunk load(const uint8_t* row, const uint16_t* scales, int chunk) {
    const uint8_t* block = row + chunk / 8 * 208;
    const int e = chunk % 8, half = e / 4, run = 8 * half + e % 4;
    return {shared_words(block + 16 * e), shared_words(block + 128 + 32 * half + 16 * (e % 2)), scales[chunk / 8], block[192 + run],
            block[196 + run]};
  }
  __device__ static __forceinline__ void add_dot(const Chunk (&c)[kRows], int index, const SharedVector& x, float (&sums)[kRows]) {
    const int e = index % 8, group = e / 2 % 2;
    const int quad = index / 8 * 64 + e / 4 * 32 + group * 8 + e % 2 * 4;
    float low_dot[kRows] = {}, high_dot[kRows] = {};
    const float low_total = x.sum16(quad / 4), high_total = x.sum16(quad / 4 + 4);
    CQIL_UNROLL for (int i = 0; i < 4; i++) {
      const float4 low = x.quad(quad + i), high = x.quad(quad + 16 + i);
      CQIL_UNROLL for (int r = 0; r < kRows; r++) {
        const uint32_t w = word(c[r].q, i), top = word(c[r].top, i) >> (2 * group);
        low_dot[r] = add_units(low_dot[r], (w << 1 & 0x1e1e1e1eu) | (top << 5 & 0x60606060u) | 0x80808080u, low);
        high_dot[r] = add_units(high_dot[r], (w >> 3 & 0x1e1e1e1eu) | (top << 1 & 0x60606060u) | 0x80808080u, high);
      }
    }
    CQIL_UNROLL for (int r = 0; r < kRows; r++) {
      const float low_scale = static_cast<float>(static_cast<int8_t>(c[r].low_scale));
      const float high_scale = static_cast<float>(static_cast<int8_t>(c[r].high_scale));
      const float scaled = low_scale * fmaf(-1.5f, low_total, low_dot[r]) + high_scale * fmaf(-1.5f, high_total, high_dot[r]);
      sums[r] = fmaf(64.0f * float_from_half(c[r].d), scaled, sums[r]);
    }
  }
};

}  // namespace cqil::cuda
