// Sixteen float32 lanes in one AVX-512 register. Meanings as in f32x16_plain.h, with fused multiply-adds.
#pragma once
#if defined(__GNUC__) && !defined(__clang__)
// GCC 12 warns about its own AVX-512 headers (its bug 105593).
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#include "half_table.h"

namespace cqil {
namespace CQIL_ISA {

struct F32x16 {
  __m512 v;
};

inline F32x16 zero() { return {_mm512_setzero_ps()}; }
inline F32x16 broadcast(float value) { return {_mm512_set1_ps(value)}; }
inline F32x16 load(const float* from) { return {_mm512_loadu_ps(from)}; }
inline F32x16 load_partial(const float* from, int n) {
  return {_mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << n) - 1), from)};
}
inline void store(float* to, F32x16 a) { _mm512_storeu_ps(to, a.v); }
inline void store_partial(float* to, F32x16 a, int n) {
  _mm512_mask_storeu_ps(to, static_cast<__mmask16>((1u << n) - 1), a.v);
}

inline F32x16 add(F32x16 a, F32x16 b) { return {_mm512_add_ps(a.v, b.v)}; }
inline F32x16 sub(F32x16 a, F32x16 b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline F32x16 mul(F32x16 a, F32x16 b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline F32x16 div(F32x16 a, F32x16 b) { return {_mm512_div_ps(a.v, b.v)}; }
inline F32x16 fma(F32x16 a, F32x16 b, F32x16 c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
inline F32x16 max(F32x16 a, F32x16 b) { return {_mm512_max_ps(a.v, b.v)}; }
inline F32x16 min(F32x16 a, F32x16 b) { return {_mm512_min_ps(a.v, b.v)}; }
inline F32x16 round(F32x16 a) { return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }
inline F32x16 scale_by_power(F32x16 a, F32x16 n) {
  const __m512i exponent = _mm512_add_epi32(_mm512_cvtps_epi32(n.v), _mm512_set1_epi32(127));
  return {_mm512_mul_ps(a.v, _mm512_castsi512_ps(_mm512_slli_epi32(exponent, 23)))};
}

inline float reduce_add(F32x16 a) {
  const __m256 high8 = _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(a.v), 1));
  const __m256 s8 = _mm256_add_ps(_mm512_castps512_ps256(a.v), high8);
  const __m128 s4 = _mm_add_ps(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
  const __m128 s2 = _mm_add_ps(s4, _mm_movehl_ps(s4, s4));
  return _mm_cvtss_f32(_mm_add_ss(s2, _mm_movehdup_ps(s2)));
}
// reduce_add of four vectors, side by side, by the same tree.
inline void reduce_add4(const F32x16* v, float* to) {
  // Quarters of four lanes: 0 + 2 and 1 + 3 of two vectors at once, then those two of all four vectors.
  const __m512 ab =
      _mm512_add_ps(_mm512_shuffle_f32x4(v[0].v, v[1].v, 0x44), _mm512_shuffle_f32x4(v[0].v, v[1].v, 0xee));
  const __m512 cd =
      _mm512_add_ps(_mm512_shuffle_f32x4(v[2].v, v[3].v, 0x44), _mm512_shuffle_f32x4(v[2].v, v[3].v, 0xee));
  const __m512 s4 = _mm512_add_ps(_mm512_shuffle_f32x4(ab, cd, 0x88), _mm512_shuffle_f32x4(ab, cd, 0xdd));
  const __m512 s2 = _mm512_add_ps(s4, _mm512_permute_ps(s4, 0x4e));
  const __m512 s1 = _mm512_add_ps(s2, _mm512_movehdup_ps(s2));
  const __m512i firsts = _mm512_setr_epi32(0, 4, 8, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
  _mm_storeu_ps(to, _mm512_castps512_ps128(_mm512_permutexvar_ps(firsts, s1)));
}
inline float reduce_max(F32x16 a) { return _mm512_reduce_max_ps(a.v); }

inline float f32_from_f16(uint16_t h) { return half_table[h]; }

inline F32x16 from_f16(const uint8_t* from) {
  return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)))};
}
inline F32x16 from_bf16(const uint8_t* from) {
  const __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
  return {_mm512_castsi512_ps(_mm512_slli_epi32(wide, 16))};
}
inline F32x16 from_i8(const uint8_t* from) {
  return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))))};
}

inline void store_f16(uint8_t* to, F32x16 a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT));
}
inline void store_i8(uint8_t* to, F32x16 a) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(a.v)));
}

struct U8x16 {
  __m128i v;
};
inline U8x16 load_bytes(const uint8_t* from) { return {_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))}; }
inline U8x16 low_nibbles(U8x16 a) { return {_mm_and_si128(a.v, _mm_set1_epi8(15))}; }
inline U8x16 high_nibbles(U8x16 a) { return {_mm_and_si128(_mm_srli_epi16(a.v, 4), _mm_set1_epi8(15))}; }
template <int Shift, int Up>
inline U8x16 bit_field(U8x16 a, uint8_t mask) {
  // The mask follows the shift, so bits that crossed a byte are cleared; the result fits a byte.
  const __m128i field = _mm_and_si128(_mm_srli_epi16(a.v, Shift), _mm_set1_epi8(static_cast<char>(mask)));
  return {_mm_slli_epi16(field, Up)};
}
inline U8x16 either(U8x16 a, U8x16 b) { return {_mm_or_si128(a.v, b.v)}; }
inline F32x16 from_u8(U8x16 a) { return {_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(a.v))}; }

// Sixteen bytes of two nibbles.
using NibblePairs = U8x16;
inline NibblePairs load_nibble_pairs(const uint8_t* from) { return load_bytes(from); }

// The sixteen values a nibble stands for, q * scale + offset, as a table in one register that nibbles index.
struct NibbleMap {
  __m512 table;
};
inline NibbleMap nibble_map(float scale, float offset) {
  const __m512 q = _mm512_setr_ps(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  return {_mm512_fmadd_ps(q, _mm512_set1_ps(scale), _mm512_set1_ps(offset))};
}
// (q - 8) * scale
inline NibbleMap centered_nibble_map(F32x16 scale) {
  return {_mm512_mul_ps(_mm512_setr_ps(-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7), scale.v)};
}
// The permutation reads the low four bits of each index, so nothing has to be masked.
inline F32x16 map_low(NibbleMap map, NibblePairs bytes) {
  return {_mm512_permutexvar_ps(_mm512_cvtepu8_epi32(bytes.v), map.table)};
}
inline F32x16 map_high(NibbleMap map, NibblePairs bytes) {
  return {_mm512_permutexvar_ps(_mm512_srli_epi32(_mm512_cvtepu8_epi32(bytes.v), 4), map.table)};
}

}  // namespace CQIL_ISA
}  // namespace cqil

#include "whole_register.h"
