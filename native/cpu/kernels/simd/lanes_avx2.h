// Eight lanes of 32 bits in one AVX register, each an integer or four bytes: more would not fit the register file of
// AVX2 twice over. Meanings as in lanes_plain.h. With CQIL_AVXVNNI products are VNNI's, otherwise those of AVX2.
#pragma once
#include "f32x16_avx2.h"
#include "unroll.h"

namespace cqil {
namespace CQIL_ISA {

constexpr int kLanes = 8;
struct U32xN {
  __m256i v;
};
struct F32xN {
  __m256 v;
};
template <class W>
constexpr int kStreams = 4;
constexpr int64_t kStreamBytes = 0;

inline F32xN broadcast_lanes(float value) { return {_mm256_set1_ps(value)}; }
inline F32xN load_floats(const float* from) { return {_mm256_loadu_ps(from)}; }
inline F32xN load_some_floats(const float* from, int n) { return {load_partial(from, n).lo}; }
inline void store(float* to, F32xN a) { _mm256_storeu_ps(to, a.v); }
inline void store_partial(float* to, F32xN a, int n) { store_partial(to, F32x16{a.v, a.v}, n); }
inline F32xN mul(F32xN a, F32xN b) { return {_mm256_mul_ps(a.v, b.v)}; }
inline F32xN fma(F32xN a, F32xN b, F32xN c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }

inline __m256i load_ymm(const uint8_t* from) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)); }

inline U32xN splat(uint32_t value) { return {_mm256_set1_epi32(static_cast<int>(value))}; }
inline U32xN load_lanes(const uint8_t* from) { return {load_ymm(from)}; }
inline void store_lanes(uint8_t* to, U32xN a) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), a.v); }
inline U32xN bits_and(U32xN a, U32xN b) { return {_mm256_and_si256(a.v, b.v)}; }
inline U32xN bits_or(U32xN a, U32xN b) { return {_mm256_or_si256(a.v, b.v)}; }
template <int N>
inline U32xN shift_left(U32xN a) {
  return {_mm256_slli_epi32(a.v, N)};
}
template <int N>
inline U32xN shift_right(U32xN a) {
  return {_mm256_srli_epi32(a.v, N)};
}
template <int N>
inline U32xN shift_right_signed(U32xN a) {
  return {_mm256_srai_epi32(a.v, N)};
}
inline F32xN to_float(U32xN a) { return {_mm256_cvtepi32_ps(a.v)}; }
inline F32xN from_low_halves(U32xN a) {
  const __m256i low = bits_and(a, splat(0xffff)).v;
  return {_mm256_cvtph_ps(_mm_packus_epi32(_mm256_castsi256_si128(low), _mm256_extracti128_si256(low, 1)))};
}

inline F32xN load_halves(const uint8_t* from) { return {_mm256_cvtph_ps(load_16_bytes(from))}; }

inline __m256i widen_pairs(__m256i pairs) { return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)); }

#ifdef CQIL_AVXVNNI

// As in lanes_avx512vnni.h.
template <class W>
using Weights4 = U32xN;
template <class W>
using Dot4 = U32xN;

template <class W>
inline U32xN prepare(U32xN w) {
  if constexpr (W::kSigned) return {_mm256_xor_si256(w.v, _mm256_set1_epi8(-128))};
  else return w;
}
template <class W>
inline U32xN begin(int32_t less) {
  constexpr int offset_bits = W::kSigned ? 7 : W::kOffsetBits;
  if constexpr (offset_bits == 0) return splat(0);
  else return shift_left<offset_bits>(splat(static_cast<uint32_t>(less)));
}
template <class W>
inline void add_dot4(U32xN& sum, U32xN w, U32xN x, int) {
  sum.v = _mm256_dpbusd_avx_epi32(sum.v, w.v, x.v);
}
template <class W>
inline U32xN total(U32xN sum, int32_t) {
  return sum;
}

#else

// AVX2 multiplies unsigned with signed bytes and adds two products in 16 bits, saturated: for weights below 128 two
// products fit, and of signed weights the sign goes to the activations, which are at least -127. Where more fit, that
// many are added before they are widened: eight pairs of 4-bit weights, all of a group, and two of 6-bit weights.
template <class W>
struct Weights4 {
  U32xN w, magnitude;
};
template <class W>
struct Dot4 {
  U32xN sum, pairs;
};
template <class W>
constexpr int kPairsThatFit = 32767 / (2 * 127 * W::kMost);

template <class W>
inline Weights4<W> prepare(U32xN w) {
  if constexpr (W::kSigned) return {w, {_mm256_abs_epi8(w.v)}};
  else return {w, w};
}
template <class W>
inline Dot4<W> begin(int32_t) {
  return {splat(0), splat(0)};
}
template <class W>
inline void add_dot4(Dot4<W>& dot, const Weights4<W>& w, U32xN x, int k) {
  const __m256i pairs = _mm256_maddubs_epi16(w.magnitude.v, W::kSigned ? _mm256_sign_epi8(x.v, w.w.v) : x.v);
  dot.pairs.v = k % kPairsThatFit<W> == 0 ? pairs : _mm256_add_epi16(dot.pairs.v, pairs);
  if ((k + 1) % kPairsThatFit<W> == 0) dot.sum.v = _mm256_add_epi32(dot.sum.v, widen_pairs(dot.pairs.v));
}
template <class W>
inline U32xN total(const Dot4<W>& dot, int32_t less) {
  if constexpr (W::kOffsetBits == 0) return dot.sum;
  else return {_mm256_add_epi32(dot.sum.v, shift_left<W::kOffsetBits>(splat(static_cast<uint32_t>(less))).v)};
}

#endif

}  // namespace CQIL_ISA
}  // namespace cqil
