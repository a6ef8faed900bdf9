// Sixteen lanes of 32 bits in two AVX registers, each an integer or four bytes. Meanings as in lanes_plain.h. With
// CQIL_AVXVNNI products are VNNI's, otherwise those of AVX2.
#pragma once
#include "f32x16_avx2.h"

namespace cqil {
namespace CQIL_ISA {

struct U32x16 {
  __m256i lo, hi;  // lanes 0..7 and 8..15
};

inline __m256i load_ymm(const uint8_t* from) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)); }

inline U32x16 splat(uint32_t value) {
  const __m256i v = _mm256_set1_epi32(static_cast<int>(value));
  return {v, v};
}
inline U32x16 load_lanes(const uint8_t* from) { return {load_ymm(from), load_ymm(from + 32)}; }
inline void store_lanes(uint8_t* to, U32x16 a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), a.lo);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + 32), a.hi);
}
inline U32x16 bits_and(U32x16 a, U32x16 b) { return {_mm256_and_si256(a.lo, b.lo), _mm256_and_si256(a.hi, b.hi)}; }
inline U32x16 bits_or(U32x16 a, U32x16 b) { return {_mm256_or_si256(a.lo, b.lo), _mm256_or_si256(a.hi, b.hi)}; }
template <int N>
inline U32x16 shift_left(U32x16 a) { return {_mm256_slli_epi32(a.lo, N), _mm256_slli_epi32(a.hi, N)}; }
template <int N>
inline U32x16 shift_right(U32x16 a) { return {_mm256_srli_epi32(a.lo, N), _mm256_srli_epi32(a.hi, N)}; }
template <int N>
inline U32x16 shift_right_signed(U32x16 a) { return {_mm256_srai_epi32(a.lo, N), _mm256_srai_epi32(a.hi, N)}; }
inline F32x16 to_float(U32x16 a) { return {_mm256_cvtepi32_ps(a.lo), _mm256_cvtepi32_ps(a.hi)}; }
inline F32x16 from_low_halves(U32x16 a) {
  // Packing works within halves of a register; the permutation puts its quarters in order.
  const U32x16 low = bits_and(a, splat(0xffff));
  const __m256i halves = _mm256_permute4x64_epi64(_mm256_packus_epi32(low.lo, low.hi), 0xd8);
  return {_mm256_cvtph_ps(_mm256_castsi256_si128(halves)), _mm256_cvtph_ps(_mm256_extracti128_si256(halves, 1))};
}

inline U32x16 load_column(const uint8_t* at, int64_t stride) {
  auto word = [&](int r) {
    int value;
    memcpy(&value, at + r * stride, 4);
    return value;
  };
  auto eight = [&](int r) {
    return _mm256_setr_epi32(word(r), word(r + 1), word(r + 2), word(r + 3), word(r + 4), word(r + 5), word(r + 6), word(r + 7));
  };
  return {eight(0), eight(8)};
}

// The columns of eight rows: register j takes rows j and 4 + j, so that transposing within halves leaves lane r with row r.
inline void load_columns8(const uint8_t* at, int64_t stride, __m256i* column) {
  auto rows = [&](int j) {
    const uint8_t* row = at + j * stride;
    return _mm256_inserti128_si256(_mm256_castsi128_si256(load_16_bytes(row)), load_16_bytes(row + 4 * stride), 1);
  };
  const __m256i a = rows(0), b = rows(1), c = rows(2), d = rows(3);
  const __m256i ab_low = _mm256_unpacklo_epi32(a, b), ab_high = _mm256_unpackhi_epi32(a, b);
  const __m256i cd_low = _mm256_unpacklo_epi32(c, d), cd_high = _mm256_unpackhi_epi32(c, d);
  column[0] = _mm256_unpacklo_epi64(ab_low, cd_low);
  column[1] = _mm256_unpackhi_epi64(ab_low, cd_low);
  column[2] = _mm256_unpacklo_epi64(ab_high, cd_high);
  column[3] = _mm256_unpackhi_epi64(ab_high, cd_high);
}
inline void load_columns(const uint8_t* at, int64_t stride, U32x16* column) {
  __m256i low[4], high[4];
  load_columns8(at, stride, low);
  load_columns8(at + 8 * stride, stride, high);
  for (int k = 0; k < 4; k++) column[k] = {low[k], high[k]};
}

#ifdef CQIL_AVXVNNI

// As in lanes_avx512vnni.h.
template <class W>
using Weights4 = U32x16;
template <class W>
using Dot4 = U32x16;

template <class W>
inline U32x16 prepare(U32x16 w) {
  const __m256i top = _mm256_set1_epi8(-128);
  if constexpr (W::kSigned) return {_mm256_xor_si256(w.lo, top), _mm256_xor_si256(w.hi, top)};
  else return w;
}
template <class W>
inline U32x16 begin(int32_t less) {
  constexpr int offset_bits = W::kSigned ? 7 : W::kOffsetBits;
  if constexpr (offset_bits == 0) return splat(0);
  else return shift_left<offset_bits>(splat(static_cast<uint32_t>(less)));
}
template <class W>
inline void add_dot4(U32x16& sum, const U32x16& w, const U32x16& x) {
  sum.lo = _mm256_dpbusd_avx_epi32(sum.lo, w.lo, x.lo);
  sum.hi = _mm256_dpbusd_avx_epi32(sum.hi, w.hi, x.hi);
}
template <class W>
inline U32x16 total(const U32x16& sum, int32_t) { return sum; }

#else

// AVX2 multiplies unsigned with signed bytes and adds two products in 16 bits, saturated: for weights below 128 two products fit,
// and of signed weights the sign goes to the activations, which are at least -127. What is left of 16 bits decides how many pairs
// may be added before they are widened: 4-bit weights need that once in a group.
template <class W>
struct Weights4 {
  U32x16 w, magnitude;
};
template <class W>
struct Dot4 {
  U32x16 sum;    // pairs in 16 bits where they fit, else whole lanes
};
template <class W>
constexpr bool kPairsFit = !W::kSigned && W::kMost <= 15;

inline __m256i widen_pairs(__m256i pairs) { return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)); }

template <class W>
inline Weights4<W> prepare(U32x16 w) {
  if constexpr (W::kSigned) return {w, {_mm256_abs_epi8(w.lo), _mm256_abs_epi8(w.hi)}};
  else return {w, w};
}
template <class W>
inline Dot4<W> begin(int32_t) { return {splat(0)}; }
template <class W>
inline __m256i products(__m256i w, __m256i magnitude, __m256i x) {
  return _mm256_maddubs_epi16(magnitude, W::kSigned ? _mm256_sign_epi8(x, w) : x);
}
template <class W>
inline void add_dot4(Dot4<W>& dot, const Weights4<W>& w, const U32x16& x) {
  const __m256i lo = products<W>(w.w.lo, w.magnitude.lo, x.lo), hi = products<W>(w.w.hi, w.magnitude.hi, x.hi);
  if constexpr (kPairsFit<W>)
    dot.sum = {_mm256_add_epi16(dot.sum.lo, lo), _mm256_add_epi16(dot.sum.hi, hi)};
  else
    dot.sum = {_mm256_add_epi32(dot.sum.lo, widen_pairs(lo)), _mm256_add_epi32(dot.sum.hi, widen_pairs(hi))};
}
template <class W>
inline U32x16 total(const Dot4<W>& dot, int32_t less) {
  U32x16 sum = dot.sum;
  if constexpr (kPairsFit<W>) sum = {widen_pairs(sum.lo), widen_pairs(sum.hi)};
  if constexpr (W::kOffsetBits > 0) {
    const U32x16 offset = shift_left<W::kOffsetBits>(splat(static_cast<uint32_t>(less)));
    sum = {_mm256_add_epi32(sum.lo, offset.lo), _mm256_add_epi32(sum.hi, offset.hi)};
  }
  return sum;
}

#endif

}  // namespace CQIL_ISA
}  // namespace cqil
