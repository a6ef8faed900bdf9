// How each weight format gives its bytes to int8 products: a struct with
//   kBlock, kBytes    as in weight_formats.h
//   kGroup            weights that share a scale: 32, or 16
//   kSigned           bytes are signed; otherwise they are 0 … kMost, and
//   kOffsetBits       log2 of what is to be taken off each of them; 0: nothing
//   kHasMin           groups have a minimum: w = scale q - min
//   each_group(block, stride, f)   of the same block in kLanes rows, `stride` bytes apart: calls f(g, w, scale, min) for
//                     its groups, ascending; w[k] holds weights 4 k … 4 k + 3 of the group of each row, in lanes
#pragma once
#include <stdint.h>

namespace cqil {
namespace CQIL_ISA {

inline U32xN low_nibbles(U32xN a) { return bits_and(a, splat(0x0f0f0f0fu)); }
inline U32xN high_nibbles(U32xN a) { return bits_and(shift_right<4>(a), splat(0x0f0f0f0fu)); }
template <int I>
inline F32xN byte_to_float(U32xN a) { return to_float(bits_and(shift_right<8 * I>(a), splat(0xffu))); }
template <int I>
inline F32xN signed_byte_to_float(U32xN a) { return to_float(shift_right_signed<24>(shift_left<24 - 8 * I>(a))); }

struct Int8Q8_0 {
  static constexpr int kBlock = 32, kBytes = 34, kGroup = 32, kOffsetBits = 0, kMost = 127;
  static constexpr bool kSigned = true, kHasMin = false;
  static inline F32xN scale(const uint8_t* block, int64_t stride) { return load_halves(block, stride); }
  template <class F>
  static inline void each_group(const uint8_t* block, int64_t stride, F f) {
    U32xN w[8];
    load_columns(block + 2, stride, w);
    load_columns(block + 18, stride, w + 4);
    f(0, w, scale(block, stride), broadcast_lanes(0));
  }
};

struct Int8Q4_0 {
  static constexpr int kBlock = 32, kBytes = 18, kGroup = 32, kOffsetBits = 3, kMost = 15;
  static constexpr bool kSigned = false, kHasMin = false;
  template <class F>
  static inline void each_group(const uint8_t* block, int64_t stride, F f) {
    U32xN q[4], w[8];
    load_columns(block + 2, stride, q);
    for (int k = 0; k < 4; k++) {
      w[k] = low_nibbles(q[k]);
      w[4 + k] = high_nibbles(q[k]);
    }
    f(0, w, load_halves(block, stride), broadcast_lanes(0));
  }
};

struct Int8Q4_K {
  static constexpr int kBlock = 256, kBytes = 144, kGroup = 32, kOffsetBits = 0, kMost = 15;
  static constexpr bool kSigned = false, kHasMin = true;
  template <class F>
  static inline void each_group(const uint8_t* block, int64_t stride, F f) {
    // The block begins with d and dmin, then 12 bytes of scales and minima as KScales in weight_formats.h has them.
    U32xN head[4];
    load_columns(block, stride, head);
    const F32xN d = from_low_halves(head[0]), dmin = from_low_halves(shift_right<16>(head[0]));
    const U32xN a = head[1], b = head[2], c = head[3], six = splat(0x3f3f3f3fu), top = splat(0x30303030u);
    const U32xN scales[2] = {bits_and(a, six), bits_or(low_nibbles(c), bits_and(shift_right<2>(a), top))};
    const U32xN minima[2] = {bits_and(b, six), bits_or(high_nibbles(c), bits_and(shift_right<2>(b), top))};
    pair<0>(block, stride, d, dmin, scales[0], minima[0], f);
    pair<1>(block, stride, d, dmin, scales[0], minima[0], f);
    pair<2>(block, stride, d, dmin, scales[1], minima[1], f);
    pair<3>(block, stride, d, dmin, scales[1], minima[1], f);
  }

 private:
  // Groups 2 P and 2 P + 1: the low and the high nibbles of 32 bytes.
  template <int P, class F>
  static inline void pair(const uint8_t* block, int64_t stride, F32xN d, F32xN dmin, U32xN scales, U32xN minima, F f) {
    constexpr int low = 2 * P % 4, high = low + 1;
    U32xN q[8], w[8];
    load_columns(block + 16 + 32 * P, stride, q);
    load_columns(block + 32 + 32 * P, stride, q + 4);
    for (int k = 0; k < 8; k++) w[k] = low_nibbles(q[k]);
    f(2 * P, w, mul(d, byte_to_float<low>(scales)), mul(dmin, byte_to_float<low>(minima)));
    for (int k = 0; k < 8; k++) w[k] = high_nibbles(q[k]);
    f(2 * P + 1, w, mul(d, byte_to_float<high>(scales)), mul(dmin, byte_to_float<high>(minima)));
  }
};

struct Int8Q6_K {
  static constexpr int kBlock = 256, kBytes = 210, kGroup = 16, kOffsetBits = 5, kMost = 63;
  static constexpr bool kSigned = false, kHasMin = false;
  template <class F>
  static inline void each_group(const uint8_t* block, int64_t stride, F f) {
    U32xN scales[4];
    load_columns(block + 192, stride, scales);
    const F32xN d = from_low_halves(shift_right<16>(load_column(block + 206, stride)));
    half<0>(block, stride, d, scales, f);
    half<1>(block, stride, d, scales + 2, f);
  }

 private:
  // Weights 128 H … 128 H + 127: 64 bytes of nibbles, the low ones first, and 32 bytes of bit pairs.
  template <int H, class F>
  static inline void half(const uint8_t* block, int64_t stride, F32xN d, const U32xN* scales, F f) {
    U32xN nibbles[16], top[8];
    for (int i = 0; i < 4; i++) load_columns(block + 64 * H + 16 * i, stride, nibbles + 4 * i);
    for (int i = 0; i < 2; i++) load_columns(block + 128 + 32 * H + 16 * i, stride, top + 4 * i);
    quarter<H, 0>(nibbles, top, d, scales[0], f);
    quarter<H, 1>(nibbles + 8, top, d, scales[0], f);
    quarter<H, 2>(nibbles, top, d, scales[1], f);
    quarter<H, 3>(nibbles + 8, top, d, scales[1], f);
  }
  // 32 weights, two groups.
  template <int H, int Q, class F>
  static inline void quarter(const U32xN* nibbles, const U32xN* top, F32xN d, U32xN scales, F f) {
    constexpr int g = 8 * H + 2 * Q, s = 2 * Q % 4;
    U32xN w[8];
    for (int k = 0; k < 8; k++) {
      const U32xN low = Q < 2 ? low_nibbles(nibbles[k]) : high_nibbles(nibbles[k]);
      w[k] = bits_or(low, shift_left<4>(bits_and(shift_right<2 * Q>(top[k]), splat(0x03030303u))));
    }
    f(g, w, mul(d, signed_byte_to_float<s>(scales)), broadcast_lanes(0));
    f(g + 1, w + 4, mul(d, signed_byte_to_float<s + 1>(scales)), broadcast_lanes(0));
  }
};

}  // namespace CQIL_ISA
}  // namespace cqil
