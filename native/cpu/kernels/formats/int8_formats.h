// Interleaved rows, and how each weight format gives its bytes to int8 products.
//
// A block of kLanes rows side by side takes kLanes * kBytes bytes: where the format has kBytes of two more than a
// multiple of four, the f16 scale of every row; then the block's other bytes as 32-bit words, the first of every row,
// the second of every row, … Rows that are missing are zero. A format is a struct with
//   kBlock, kBytes    as in weight_formats.h
//   kHalfAt           where its f16 that is no part of a word stands in a block; -1: nowhere
//   word_at(k)        where the k-th interleaved word stands in a block: they are in the order in which each_group
//                     reads them, as hardware prefetchers give up on any other
//   kGroup            weights that share a scale: 32, or 16
//   kSigned           bytes are signed; otherwise they are 0 … kMost, and
//   kOffsetBits       log2 of what is to be taken off each of them; 0: nothing
//   kHasMin           groups have a minimum: w = scale q - min
//   each_group(block, f)   calls f(g, w, scale, min) for its groups, ascending; w[k] holds weights 4 k … 4 k + 3 of the
//                     group of each row, in lanes
#pragma once
#include <stdint.h>

#include "../simd/unroll.h"

namespace cqil {
namespace CQIL_ISA {

constexpr int64_t kVectorBytes = 4 * kLanes;

// A block of kLanes interleaved rows of format W.
template <class W>
struct Block {
  static constexpr int64_t kBytes = kLanes * W::kBytes;
  const uint8_t* at;
  F32xN half() const { return load_halves(at); }
  U32xN word(int k) const { return load_lanes(at + (W::kHalfAt < 0 ? 0 : 2 * kLanes) + k * kVectorBytes); }
};

inline U32xN low_nibbles(U32xN a) { return bits_and(a, splat(0x0f0f0f0fu)); }
inline U32xN high_nibbles(U32xN a) { return bits_and(shift_right<4>(a), splat(0x0f0f0f0fu)); }
template <int I>
inline F32xN byte_to_float(U32xN a) {
  return to_float(bits_and(shift_right<8 * I>(a), splat(0xffu)));
}
template <int I>
inline F32xN signed_byte_to_float(U32xN a) {
  return to_float(shift_right_signed<24>(shift_left<24 - 8 * I>(a)));
}

struct Int8Q8_0 {
  static constexpr int kBlock = 32, kBytes = 34, kHalfAt = 0, kGroup = 32, kOffsetBits = 0, kMost = 127;
  static constexpr bool kSigned = true, kHasMin = false;
  static constexpr int word_at(int k) { return 2 + 4 * k; }
  template <class F>
  static CQIL_INLINE void each_group(Block<Int8Q8_0> block, F f) {
    U32xN w[8];
    CQIL_UNROLL for (int k = 0; k < 8; k++) w[k] = block.word(k);
    f(0, w, block.half(), broadcast_lanes(0));
  }
};

struct Int8Q4_0 {
  static constexpr int kBlock = 32, kBytes = 18, kHalfAt = 0, kGroup = 32, kOffsetBits = 3, kMost = 15;
  static constexpr bool kSigned = false, kHasMin = false;
  static constexpr int word_at(int k) { return 2 + 4 * k; }
  template <class F>
  static CQIL_INLINE void each_group(Block<Int8Q4_0> block, F f) {
    U32xN w[8];
    CQIL_UNROLL for (int k = 0; k < 4; k++) {
      const U32xN q = block.word(k);
      w[k] = low_nibbles(q);
      w[4 + k] = high_nibbles(q);
    }
    f(0, w, block.half(), broadcast_lanes(0));
  }
};

struct Int8Q4_K {
  static constexpr int kBlock = 256, kBytes = 144, kHalfAt = -1, kGroup = 32, kOffsetBits = 0, kMost = 15;
  static constexpr bool kSigned = false, kHasMin = true;
  static constexpr int word_at(int k) { return 4 * k; }
  template <class F>
  static CQIL_INLINE void each_group(Block<Int8Q4_K> block, F f) {
    // The block begins with d and dmin, then 12 bytes of scales and minima as KScales in weight_formats.h has them.
    const U32xN two = block.word(0), a = block.word(1), b = block.word(2), c = block.word(3);
    const F32xN d = from_low_halves(two), dmin = from_low_halves(shift_right<16>(two));
    const U32xN six = splat(0x3f3f3f3fu), top = splat(0x30303030u);
    const U32xN scales[2] = {bits_and(a, six), bits_or(low_nibbles(c), bits_and(shift_right<2>(a), top))};
    const U32xN minima[2] = {bits_and(b, six), bits_or(high_nibbles(c), bits_and(shift_right<2>(b), top))};
    pair<0>(block, d, dmin, scales[0], minima[0], f);
    pair<1>(block, d, dmin, scales[0], minima[0], f);
    pair<2>(block, d, dmin, scales[1], minima[1], f);
    pair<3>(block, d, dmin, scales[1], minima[1], f);
  }

 private:
  // Groups 2 P and 2 P + 1: the low and the high nibbles of 32 bytes.
  template <int P, class F>
  static CQIL_INLINE void pair(Block<Int8Q4_K> block, F32xN d, F32xN dmin, U32xN scales, U32xN minima, F f) {
    constexpr int low = 2 * P % 4, high = low + 1;
    U32xN w[8];
    CQIL_UNROLL for (int k = 0; k < 8; k++) w[k] = low_nibbles(block.word(4 + 8 * P + k));
    f(2 * P, w, mul(d, byte_to_float<low>(scales)), mul(dmin, byte_to_float<low>(minima)));
    CQIL_UNROLL for (int k = 0; k < 8; k++) w[k] = high_nibbles(block.word(4 + 8 * P + k));
    f(2 * P + 1, w, mul(d, byte_to_float<high>(scales)), mul(dmin, byte_to_float<high>(minima)));
  }
};

struct Int8Q6_K {
  static constexpr int kBlock = 256, kBytes = 210, kHalfAt = 208, kGroup = 16, kOffsetBits = 5, kMost = 63;
  static constexpr bool kSigned = false, kHasMin = false;
  // The scales; then of each half the bit pairs and the nibbles.
  static constexpr int word_at(int k) {
    const int half = (k - 4) / 24, i = (k - 4) % 24;
    return k < 4 ? 192 + 4 * k : i < 8 ? 128 + 32 * half + 4 * i : 64 * half + 4 * (i - 8);
  }
  template <class F>
  static CQIL_INLINE void each_group(Block<Int8Q6_K> block, F f) {
    const F32xN d = block.half();
    half<0>(block, d, f);
    half<1>(block, d, f);
  }

 private:
  // Weights 128 H … 128 H + 127: 32 bytes of bit pairs, then 64 of nibbles, the low ones first.
  template <int H, class F>
  static CQIL_INLINE void half(Block<Int8Q6_K> block, F32xN d, F f) {
    const U32xN scales[2] = {block.word(2 * H), block.word(2 * H + 1)};
    quarter<H, 0>(block, d, scales[0], f);
    quarter<H, 1>(block, d, scales[0], f);
    quarter<H, 2>(block, d, scales[1], f);
    quarter<H, 3>(block, d, scales[1], f);
  }
  // 32 weights, two groups.
  template <int H, int Q, class F>
  static CQIL_INLINE void quarter(Block<Int8Q6_K> block, F32xN d, U32xN scales, F f) {
    constexpr int g = 8 * H + 2 * Q, s = 2 * Q % 4;
    U32xN w[8];
    CQIL_UNROLL for (int k = 0; k < 8; k++) {
      const U32xN top = block.word(4 + 24 * H + k), nibbles = block.word(12 + 24 * H + Q % 2 * 8 + k);
      const U32xN low = Q < 2 ? low_nibbles(nibbles) : high_nibbles(nibbles);
      const U32xN there = Q < 2 ? shift_left<4 - 2 * Q % 4>(top) : shift_right<2 * Q % 4>(top);  // bits 2 Q and 2 Q + 1
                                                                                                 // to bits 4 and 5
      w[k] = bits_or(low, bits_and(there, splat(0x30303030u)));
    }
    f(g, w, mul(d, signed_byte_to_float<s>(scales)), broadcast_lanes(0));
    f(g + 1, w + 4, mul(d, signed_byte_to_float<s + 1>(scales)), broadcast_lanes(0));
  }
};

}  // namespace CQIL_ISA
}  // namespace cqil
