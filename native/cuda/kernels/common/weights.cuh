// How each weight format is read by a product of one token: a row is a run of chunks of about 16 bytes, one for each
// thread of a warp in turn. 32 chunks of two rows are a part, which lies in shared memory as the rows do: kRowBytes of
// each row, then kScaleBytes of the scales of each, where they have a plane of their own. Every format is a struct with
//   kWeights        weights per chunk
//   kRowBytes, kScaleBytes
//   kSlots          how many stages a ring of weights has, of one part each or more
//   Chunk           a chunk's registers
//   load(row, scales, chunk)          of a part; chunk 0 ... 31
//   Staged         how x lies in shared memory: StagedFloats, or StagedFixed for quantized weights
//   add_dot(chunks, index, x, sums)   sums[r] += chunk r . x for kRows rows that share x; index is the chunk's
//                                     place after x's first
//
// A quantized chunk's sum is one of integers, exact: of each digit plane of x with the quants, four at a time, and then
// low + 2^8 middle + 2^16 high, which no format's largest quants bring to 2^31. Block layouts are those of GGUF as
// repacked by pack.h.
#pragma once
#include "intrinsics.cuh"
#include "../launch.h"
#include "shared_vector.cuh"

namespace cqil::cuda {

// Rows that one warp multiplies at a time: two, so that x is read from shared memory half as often.
constexpr int kRows = 2;

// Byte i of t, exact.
__device__ __forceinline__ float byte_float(uint32_t t, int i) {
  return float_from_bits(select_bytes(t, 0x4b000000u, 0x7440u | static_cast<uint32_t>(i))) - 8388608.0f;
}
__device__ __forceinline__ float add_dot4(float sum, float a, float b, float c, float d, const float4& x) {
  sum = fmaf(a, x.x, sum);
  sum = fmaf(b, x.y, sum);
  sum = fmaf(c, x.z, sum);
  return fmaf(d, x.w, sum);
}
__device__ __forceinline__ uint4 shared_words(const uint8_t* at) { return *reinterpret_cast<const uint4*>(at); }
__device__ __forceinline__ uint32_t word(const uint4& v, int i) {
  return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w;
}

// Sums of products of quants with the digits of x.
struct DigitSums {
  int32_t of[3] = {0, 0, 0};
  // Four signed quants in a word, and four digits of each plane.
  __device__ __forceinline__ void add(uint32_t quants, uint32_t low, uint32_t middle, uint32_t high) {
    of[0] = dot_bytes(quants, low, of[0]);
    of[1] = dot_bytes(quants, middle, of[1]);
    of[2] = dot_bytes(quants, high, of[2]);
  }
  __device__ __forceinline__ float total() const { return static_cast<float>(of[0] + of[1] * 256 + of[2] * 65536); }
};
// Half a block's digits.
struct Digits {
  uint4 plane[3];
  __device__ __forceinline__ Digits(const uint8_t* block, int half)
      : plane{StagedFixed::plane(block, 0, half), StagedFixed::plane(block, 1, half),
              StagedFixed::plane(block, 2, half)} {}
  __device__ __forceinline__ void add_to(DigitSums& sums, uint32_t quants, int i) const {
    sums.add(quants, word(plane[0], i), word(plane[1], i), word(plane[2], i));
  }
};

template <int D>
struct Format;

// Formats whose chunks are the 16 bytes of a row in turn.
struct PlainChunks {
  static constexpr int kRowBytes = 32 * 16, kScaleBytes = 0, kSlots = 4;
  // Bytes of both planes in a row of `chunks` chunks.
  __device__ static __forceinline__ int row_bytes(int chunks) { return 16 * chunks; }
  __device__ static __forceinline__ int scale_bytes(int) { return 0; }
  using Staged = StagedFloats;
  using Chunk = uint4;
  __device__ static __forceinline__ Chunk load(const uint8_t* row, const uint16_t*, int chunk) {
    return shared_words(row + 16 * chunk);
  }
};
// Sixteen bytes of quants, and the scale of their block.
struct ScaledChunk {
  uint4 q;
  uint16_t d;
};

template <>
struct Format<CQIL_F32> : PlainChunks {
  static constexpr int kWeights = 4;
  template <class X>
  __device__ static __forceinline__ void add_dot(const Chunk (&c)[kRows], int index, const X& x, float (&sums)[kRows]) {
    const float4 v = x.quad(index);
    CQIL_UNROLL for (int r = 0; r < kRows; r++) {
      sums[r] = add_dot4(sums[r], float_from_bits(c[r].x), float_from_bits(c[r].y), float_from_bits(c[r].z),
                         float_from_bits(c[r].w), v);
    }
  }
};

// Both 16-bit formats: eight weights; Halves gives the float of the low and of the high half of a word.
template <class Halves>
struct Format16 : PlainChunks {
  static constexpr int kWeights = 8;
  template <class X>
  __device__ static __forceinline__ void add_dot(const Chunk (&c)[kRows], int index, const X& x, float (&sums)[kRows]) {
    const float4 a = x.quad(2 * index), b = x.quad(2 * index + 1);
    CQIL_UNROLL for (int r = 0; r < kRows; r++) {
      sums[r] =
          add_dot4(sums[r], Halves::low(c[r].x), Halves::high(c[r].x), Halves::low(c[r].y), Halves::high(c[r].y), a);
      sums[r] =
          add_dot4(sums[r], Halves::low(c[r].z), Halves::high(c[r].z), Halves::low(c[r].w), Halves::high(c[r].w), b);
    }
  }
};
struct HalvesF16 {
  __device__ static __forceinline__ float low(uint32_t w) {
    return float_from_half(static_cast<uint16_t>(w & 0xffffu));
  }
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
  using Staged = StagedFixed;
  static constexpr int kWeights = 16, kScaleBytes = 32, kSlots = 3;
  __device__ static __forceinline__ int scale_bytes(int chunks) { return chunks; }
  using Chunk = ScaledChunk;
  __device__ static __forceinline__ Chunk load(const uint8_t* row, const uint16_t* scales, int chunk) {
    return {shared_words(row + 16 * chunk), scales[chunk / 2]};
  }
  __device__ static __forceinline__ void add_dot(const Chunk (&c)[kRows], int index, const StagedFixed& x,
                                                 float (&sums)[kRows]) {
    const uint8_t* block = x.block(index / 2);
    const Digits digits(block, index % 2);
    const float scale = StagedFixed::scale(block).scale;
    CQIL_UNROLL for (int r = 0; r < kRows; r++) {
      DigitSums dot;
      CQIL_UNROLL for (int i = 0; i < 4; i++) digits.add_to(dot, word(c[r].q, i), i);
      // The quants are too large for one integer.
      const float total =
          fmaf(65536.0f, static_cast<float>(dot.of[2]), static_cast<float>(dot.of[0] + 256 * dot.of[1]));
      sums[r] = fmaf(float_from_half(c[r].d) * scale, total, sums[r]);
    }
  }
};

// A block: weight i in the low nibble of byte i, weight 16 + i in its high nibble, w = d (q - 8).
template <>
struct Format<CQIL_Q4_0> : PlainChunks {
  using Staged = StagedFixed;
  static constexpr int kWeights = 32, kScaleBytes = 64, kSlots = 3;
  __device__ static __forceinline__ int scale_bytes(int chunks) { return 2 * chunks; }
  using Chunk = ScaledChunk;
  __device__ static __forceinline__ Chunk load(const uint8_t* row, const uint16_t* scales, int chunk) {
    return {shared_words(row + 16 * chunk), scales[chunk]};
  }
  __device__ static __forceinline__ void add_dot(const Chunk (&c)[kRows], int index, const StagedFixed& x,
                                                 float (&sums)[kRows]) {
    const uint8_t* block = x.block(index);
    const Digits low(block, 0), high(block, 1);
    const StagedFixed::Scale scale = StagedFixed::scale(block);
    CQIL_UNROLL for (int r = 0; r < kRows; r++) {
      DigitSums dot;
      dot.of[0] = -8 * (scale.sums[0] + scale.sums[1]);
      CQIL_UNROLL for (int i = 0; i < 4; i++) {
        const uint32_t w = word(c[r].q, i);
        low.add_to(dot, w & 0x0f0f0f0fu, i);
        high.add_to(dot, w >> 4 & 0x0f0f0f0fu, i);
      }
      sums[r] = fmaf(float_from_half(c[r].d) * scale.scale, dot.total(), sums[r]);
    }
  }
};

// Scale (low byte) and minimum (next byte) j of a Q4_K or Q5_K header: six bits each in 12 bytes, 0-3 in the low bits
// of bytes 0-7, 4-7 in the nibbles of bytes 8-11 with their top two bits above those of bytes 0-7.
__device__ __forceinline__ uint32_t k_scale_and_min(const uint4& header, int j) {
  const int shift = 8 * (j & 3);
  const uint32_t a = header.y >> shift, b = header.z >> shift, c = header.w >> shift;
  if (j < 4) return (a & 63u) | (b & 63u) << 8;
  return (c & 15u) | (a >> 2 & 48u) | ((c >> 4 & 15u) | (b >> 2 & 48u)) << 8;
}

// Two runs of 16 weights that share their bytes, of a block of 256: w = d scale q - dmin min. Chunk e of a block holds
// the low and the high nibbles of quant bytes 16 e …, which are weights 64 (e / 2) + 16 (e % 2) … and those 32 further
// on.
template <int kBits>
struct FormatK45 {
  using Staged = StagedFixed;
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
  // Four nibbles, and of Q5_K bit `bit` of each byte of `fifth` above them.
  __device__ static __forceinline__ uint32_t quants(uint32_t nibbles, uint32_t fifth, int bit) {
    return kBits == 4 ? nibbles : nibbles | (fifth >> bit & 0x01010101u) << 4;
  }
  __device__ static __forceinline__ void add_dot(const Chunk (&c)[kRows], int index, const StagedFixed& x,
                                                 float (&sums)[kRows]) {
    const int e = index % 8, pair = e / 2, half = e % 2;
    const uint8_t* low_block = x.block(index / 8 * 8 + 2 * pair);
    const uint8_t* high_block = low_block + StagedFixed::kBlockBytes;
    const Digits low(low_block, half), high(high_block, half);
    const StagedFixed::Scale low_scale = StagedFixed::scale(low_block), high_scale = StagedFixed::scale(high_block);
    const float low_total = low_scale.scale * static_cast<float>(low_scale.sum(half));
    const float high_total = high_scale.scale * static_cast<float>(high_scale.sum(half));
    CQIL_UNROLL for (int r = 0; r < kRows; r++) {
      DigitSums low_dot, high_dot;
      CQIL_UNROLL for (int i = 0; i < 4; i++) {
        const uint32_t w = word(c[r].q, i), fifth = word(c[r].fifth, i);
        low.add_to(low_dot, quants(w & 0x0f0f0f0fu, fifth, 2 * pair), i);
        high.add_to(high_dot, quants(w >> 4 & 0x0f0f0f0fu, fifth, 2 * pair + 1), i);
      }
      const float d = float_from_half(static_cast<uint16_t>(c[r].header.x & 0xffffu));
      const float dmin = float_from_half(static_cast<uint16_t>(c[r].header.x >> 16));
      const uint32_t low_pair = k_scale_and_min(c[r].header, 2 * pair),
                     high_pair = k_scale_and_min(c[r].header, 2 * pair + 1);
      const float scaled = fmaf(byte_float(low_pair, 0) * low_scale.scale, low_dot.total(),
                                byte_float(high_pair, 0) * high_scale.scale * high_dot.total());
      const float minima = fmaf(byte_float(low_pair, 1), low_total, byte_float(high_pair, 1) * high_total);
      sums[r] = fmaf(d, scaled, fmaf(-dmin, minima, sums[r]));
    }
  }
};
template <>
struct Format<CQIL_Q4_K> : FormatK45<4> {};
template <>
struct Format<CQIL_Q5_K> : FormatK45<5> {};

// Blocks of 256 in 208 bytes: 128 of low nibbles, 64 of high bit pairs, 16 x int8 scales; w = d scale (q - 32). Chunk e
// of a block holds nibble bytes 16 e …: with half = e / 4, group = e / 2 % 2 their low nibbles are weights 128 half +
// 32 group + 16 (e % 2) … and their high nibbles those 64 further on.
template <>
struct Format<CQIL_Q6_K> {
  using Staged = StagedFixed;
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
    return {shared_words(block + 16 * e), shared_words(block + 128 + 32 * half + 16 * (e % 2)), scales[chunk / 8],
            block[192 + run], block[196 + run]};
  }
  __device__ static __forceinline__ void add_dot(const Chunk (&c)[kRows], int index, const StagedFixed& x,
                                                 float (&sums)[kRows]) {
    const int e = index % 8, group = e / 2 % 2, half = e % 2;
    const uint8_t* low_block = x.block(index / 8 * 8 + e / 4 * 4 + group);
    const uint8_t* high_block = low_block + 2 * StagedFixed::kBlockBytes;
    const Digits low(low_block, half), high(high_block, half);
    const StagedFixed::Scale low_scale = StagedFixed::scale(low_block), high_scale = StagedFixed::scale(high_block);
    CQIL_UNROLL for (int r = 0; r < kRows; r++) {
      DigitSums low_dot, high_dot;
      low_dot.of[0] = -32 * low_scale.sum(half), high_dot.of[0] = -32 * high_scale.sum(half);
      CQIL_UNROLL for (int i = 0; i < 4; i++) {
        const uint32_t w = word(c[r].q, i), top = word(c[r].top, i) >> (2 * group);
        low.add_to(low_dot, (w & 0x0f0f0f0fu) | (top << 4 & 0x30303030u), i);
        high.add_to(high_dot, (w >> 4 & 0x0f0f0f0fu) | (top & 0x30303030u), i);
      }
      const float low_by = static_cast<float>(static_cast<int8_t>(c[r].low_scale)) * low_scale.scale;
      const float high_by = static_cast<float>(static_cast<int8_t>(c[r].high_scale)) * high_scale.scale;
      const float scaled = fmaf(low_by, low_dot.total(), high_by * high_dot.total());
      sums[r] = fmaf(float_from_half(c[r].d), scaled, sums[r]);
    }
  }
};

}  // namespace cqil::cuda
