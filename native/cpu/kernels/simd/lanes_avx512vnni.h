// Sixteen lanes of 32 bits in one AVX-512 register, each an integer or four bytes, with VNNI's products. Meanings as in
// lanes_plain.h.
#pragma once
#include "f32x16_avx512.h"

namespace cqil {
namespace CQIL_ISA {

struct U32x16 {
  __m512i v;
};

inline U32x16 splat(uint32_t value) { return {_mm512_set1_epi32(static_cast<int>(value))}; }
inline U32x16 load_lanes(const uint8_t* from) { return {_mm512_loadu_si512(from)}; }
inline void store_lanes(uint8_t* to, U32x16 a) { _mm512_storeu_si512(to, a.v); }
inline U32x16 bits_and(U32x16 a, U32x16 b) { return {_mm512_and_si512(a.v, b.v)}; }
inline U32x16 bits_or(U32x16 a, U32x16 b) { return {_mm512_or_si512(a.v, b.v)}; }
template <int N>
inline U32x16 shift_left(U32x16 a) {
  return {_mm512_slli_epi32(a.v, N)};
}
template <int N>
inline U32x16 shift_right(U32x16 a) {
  return {_mm512_srli_epi32(a.v, N)};
}
template <int N>
inline U32x16 shift_right_signed(U32x16 a) {
  return {_mm512_srai_epi32(a.v, N)};
}
inline F32x16 to_float(U32x16 a) { return {_mm512_cvtepi32_ps(a.v)}; }
inline F32x16 from_low_halves(U32x16 a) { return {_mm512_cvtph_ps(_mm512_cvtepi32_epi16(a.v))}; }

// VNNI multiplies unsigned with signed bytes. Signed weights are raised by 128, and all formats' offsets are taken off
// again by beginning with minus the offset times the sum of the activations.
template <class W>
using Weights4 = U32x16;
template <class W>
using Dot4 = U32x16;

template <class W>
inline U32x16 prepare(U32x16 w) {
  if constexpr (W::kSigned) return {_mm512_xor_si512(w.v, _mm512_set1_epi8(-128))};
  else return w;
}
template <class W>
inline U32x16 begin(int32_t less) {
  constexpr int offset_bits = W::kSigned ? 7 : W::kOffsetBits;
  if constexpr (offset_bits == 0) return splat(0);
  else return shift_left<offset_bits>(splat(static_cast<uint32_t>(less)));
}
template <class W>
inline void add_dot4(U32x16& sum, U32x16 w, U32x16 x, int) {
  sum.v = _mm512_dpbusd_epi32(sum.v, w.v, x.v);
}
template <class W>
inline U32x16 total(U32x16 sum, int32_t) {
  return sum;
}

// As measured on Zen 5.
template <class W>
constexpr int kStreams = W::kBlock > 32   ? 1
                         : W::kBytes > 32 ? 2
                                          : 4;
constexpr int64_t kStreamBytes = 128 << 10;

}  // namespace CQIL_ISA
}  // namespace cqil

#include "sixteen_lanes.h"
