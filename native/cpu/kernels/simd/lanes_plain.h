// Sixteen lanes of 32 bits in plain C++, each an integer or four bytes, the first in the low bits: what int8 products
// are made of. The readable twin of the vector versions.
#pragma once
#include "f32x16_plain.h"

namespace cqil {
namespace CQIL_ISA {

struct U32x16 {
  uint32_t lane[16];
};

#define CQIL_EACH_LANE for (int i = 0; i < 16; i++)

inline U32x16 splat(uint32_t value) {
  U32x16 r;
  CQIL_EACH_LANE r.lane[i] = value;
  return r;
}
inline U32x16 load_lanes(const uint8_t* from) {
  U32x16 r;
  memcpy(r.lane, from, sizeof r.lane);
  return r;
}
inline void store_lanes(uint8_t* to, const U32x16& a) { memcpy(to, a.lane, sizeof a.lane); }

#define CQIL_LANEWISE(head, expression)    \
  head {                                   \
    U32x16 r;                              \
    CQIL_EACH_LANE r.lane[i] = expression; \
    return r;                              \
  }
CQIL_LANEWISE(inline U32x16 bits_and(const U32x16& a, const U32x16& b), a.lane[i] & b.lane[i])
CQIL_LANEWISE(inline U32x16 bits_or(const U32x16& a, const U32x16& b), a.lane[i] | b.lane[i])
CQIL_LANEWISE(template <int N> inline U32x16 shift_left(const U32x16& a), a.lane[i] << N)
CQIL_LANEWISE(template <int N> inline U32x16 shift_right(const U32x16& a), a.lane[i] >> N)
// With copies of the sign.
CQIL_LANEWISE(template <int N> inline U32x16 shift_right_signed(const U32x16& a),
              static_cast<uint32_t>(static_cast<int32_t>(a.lane[i]) >> N))
#undef CQIL_LANEWISE

// Lanes as signed integers; exact below 2^24.
inline F32x16 to_float(const U32x16& a) {
  F32x16 r;
  CQIL_EACH_LANE r.lane[i] = static_cast<float>(static_cast<int32_t>(a.lane[i]));
  return r;
}
// The low half of each lane as an f16.
inline F32x16 from_low_halves(const U32x16& a) {
  F32x16 r;
  CQIL_EACH_LANE r.lane[i] = f32_from_f16(static_cast<uint16_t>(a.lane[i]));
  return r;
}

// The exact sum of products of a group's weights, as W in int8_formats.h says they are, with 4 bytes of activations at
// a time: Dot4 begins with minus the sum of the activations, `less`, takes Weights4 k = 0, 1, 2, … and the activations
// in every lane, and ends with the total, less W's offset.
template <class W>
using Weights4 = U32x16;
template <class W>
using Dot4 = U32x16;

template <class W>
inline const U32x16& prepare(const U32x16& w) {
  return w;
}
template <class W>
inline U32x16 begin(int32_t less) {
  return splat(W::kOffsetBits ? static_cast<uint32_t>(less) << W::kOffsetBits : 0);
}
template <class W>
inline void add_dot4(U32x16& sum, const U32x16& w, const U32x16& x, int) {
  CQIL_EACH_LANE for (int byte = 0; byte < 32; byte += 8) {
    const uint32_t bits = w.lane[i] >> byte & 0xff;
    const int weight = W::kSigned ? static_cast<int8_t>(bits) : static_cast<int>(bits);
    sum.lane[i] += static_cast<uint32_t>(weight * static_cast<int8_t>(x.lane[i] >> byte));
  }
}
template <class W>
inline const U32x16& total(const U32x16& sum, int32_t) {
  return sum;
}

#undef CQIL_EACH_LANE

// Sets of rows that a product reads at a time, each a stream of memory of its own: at most, and of as many bytes at
// least.
template <class W>
constexpr int kStreams = 1;
constexpr int64_t kStreamBytes = 0;

}  // namespace CQIL_ISA
}  // namespace cqil

#include "sixteen_lanes.h"
