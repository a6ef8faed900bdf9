// Eight lanes of 32 bits in one AVX register, each an integer or four bytes: more would not fit the register file of AVX2 twice over.
// Meanings as in lanes_plain.h. With CQIL_AVXVNNI products are VNNI's, otherwise those of AVX2.
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
// Each lane reads a run of rows of its own, in order, which is what hardware prefetchers follow.
constexpr bool kLanesInRuns = true;

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
inline U32xN shift_left(U32xN a) { return {_mm256_slli_epi32(a.v, N)}; }
template <int N>
inline U32xN shift_right(U32xN a) { return {_mm256_srli_epi32(a.v, N)}; }
template <int N>
inline U32xN shift_right_signed(U32xN a) { return {_mm256_srai_epi32(a.v, N)}; }
inline F32xN to_float(U32xN a) { return {_mm256_cvtepi32_ps(a.v)}; }
inline F32xN from_low_halves(U32xN a) {
  const __m256i low = bits_and(a, splat(0xffff)).v;
  return {_mm256_cvtph_ps(_mm_packus_epi32(_mm256_castsi256_si128(low), _mm256_extracti128_si256(low, 1)))};
}

inline int read_word(const uint8_t* from) {
  int word;
  memcpy(&word, from, 4);
  return word;
}
inline int read_half(const uint8_t* from) {
  uint16_t half;
  memcpy(&half, from, 2);
  return half;
}
inline U32xN load_column(const uint8_t* at, int64_t stride) {
  auto word = [&](int r) { return read_word(at + r * stride); };
  return {_mm256_setr_epi32(word(0), word(1), word(2), word(3), word(4), word(5), word(6), word(7))};
}
// Lane r: the f16 at at + r * stride, after which two more bytes may be read.
inline F32xN load_halves(const uint8_t* at, int64_t stride) {
  auto half = [&](int r) { return read_half(at + r * stride); };
  __m128i halves = _mm_cvtsi32_si128(read_word(at));
  halves = _mm_insert_epi16(halves, half(1), 1);
  halves = _mm_insert_epi16(halves, half(2), 2);
  halves = _mm_insert_epi16(halves, half(3), 3);
  halves = _mm_insert_epi16(halves, half(4), 4);
  halves = _mm_insert_epi16(halves, half(5), 5);
  halves = _mm_insert_epi16(halves, half(6), 6);
  halves = _mm_insert_epi16(halves, half(7), 7);
  return {_mm256_cvtph_ps(halves)};
}

inline void load_columns(const uint8_t* at, int64_t stride, U32xN* column) {
  // Register j takes rows j and 4 + j, so that transposing within halves leaves lane r with row r.
  auto rows = [&](int j) {
    const uint8_t* row = at + j * stride;
    return _mm256_inserti128_si256(_mm256_castsi128_si256(load_16_bytes(row)), load_16_bytes(row + 4 * stride), 1);
  };
  const __m256i a = rows(0), b = rows(1), c = rows(2), d = rows(3);
  const __m256i ab_low = _mm256_unpacklo_epi32(a, b), ab_high = _mm256_unpackhi_epi32(a, b);
  const __m256i cd_low = _mm256_unpacklo_epi32(c, d), cd_high = _mm256_unpackhi_epi32(c, d);
  column[0].v = _mm256_unpacklo_epi64(ab_low, cd_low);
  column[1].v = _mm256_unpackhi_epi64(ab_low, cd_low);
  column[2].v = _mm256_unpacklo_epi64(ab_high, cd_high);
  column[3].v = _mm256_unpackhi_epi64(ab_high, cd_high);
}

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
inline void add_dot4(U32xN& sum, U32xN w, U32xN x, int) { sum.v = _mm256_dpbusd_avx_epi32(sum.v, w.v, x.v); }
template <class W>
inline U32xN total(U32xN sum, int32_t) { return sum; }

inline __m256i sums_of_four(__m256i magnitude, __m256i x) { return _mm256_dpbusd_avx_epi32(_mm256_setzero_si256(), magnitude, x); }

#else

// AVX2 multiplies unsigned with signed bytes and adds two products in 16 bits, saturated: for weights below 128 two products fit,
// and of signed weights the sign goes to the activations, which are at least -127. Where more fit, that many are added before they are
// widened: eight pairs of 4-bit weights, all of a group, and two of 6-bit weights.
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
inline Dot4<W> begin(int32_t) { return {splat(0), splat(0)}; }
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

inline __m256i sums_of_four(__m256i magnitude, __m256i x) { return widen_pairs(_mm256_maddubs_epi16(magnitude, x)); }

#endif

// Rows of signed bytes are multiplied as they lie, 32 weights of a row at a time: adding a register up costs less than turning eight rows.
template <class W>
constexpr bool kByRow = W::kSigned;

template <class W>
inline U32xN total_by_row(W, const uint8_t* block, int64_t stride, const int8_t* x) {
  const __m256i xs = load_ymm(reinterpret_cast<const uint8_t*>(x));
  __m256i row[8];
  CQIL_UNROLL for (int r = 0; r < 8; r++) {
    const __m256i w = load_ymm(block + W::kBytes - W::kGroup + r * stride);
    row[r] = sums_of_four(_mm256_abs_epi8(w), _mm256_sign_epi8(xs, w));
  }
  const __m256i low = _mm256_hadd_epi32(_mm256_hadd_epi32(row[0], row[1]), _mm256_hadd_epi32(row[2], row[3]));
  const __m256i high = _mm256_hadd_epi32(_mm256_hadd_epi32(row[4], row[5]), _mm256_hadd_epi32(row[6], row[7]));
  return {_mm256_add_epi32(_mm256_permute2x128_si256(low, high, 0x20), _mm256_permute2x128_si256(low, high, 0x31))};
}

}  // namespace CQIL_ISA
}  // namespace cqil
