// Sixteen float32 lanes in two AVX registers (AVX2, FMA, F16C). Meanings as in f32x16_plain.h, with fused
// multiply-adds.
#pragma once
#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#include "half_table.h"

namespace cqil {
namespace CQIL_ISA {

struct F32x16 {
  __m256 lo, hi;  // lanes 0..7 and 8..15
};

inline F32x16 zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
inline F32x16 broadcast(float value) { return {_mm256_set1_ps(value), _mm256_set1_ps(value)}; }
inline F32x16 load(const float* from) { return {_mm256_loadu_ps(from), _mm256_loadu_ps(from + 8)}; }
inline F32x16 load_partial(const float* from, int n) {
  float lanes[16] = {};
  memcpy(lanes, from, static_cast<size_t>(n) * sizeof(float));
  return load(lanes);
}
inline void store(float* to, F32x16 a) {
  _mm256_storeu_ps(to, a.lo);
  _mm256_storeu_ps(to + 8, a.hi);
}
inline void store_partial(float* to, F32x16 a, int n) {
  float lanes[16];
  store(lanes, a);
  memcpy(to, lanes, static_cast<size_t>(n) * sizeof(float));
}

inline F32x16 add(F32x16 a, F32x16 b) { return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)}; }
inline F32x16 sub(F32x16 a, F32x16 b) { return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)}; }
inline F32x16 mul(F32x16 a, F32x16 b) { return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)}; }
inline F32x16 div(F32x16 a, F32x16 b) { return {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)}; }
inline F32x16 fma(F32x16 a, F32x16 b, F32x16 c) {
  return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}
inline F32x16 max(F32x16 a, F32x16 b) { return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)}; }
inline F32x16 min(F32x16 a, F32x16 b) { return {_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)}; }
inline F32x16 round(F32x16 a) {
  constexpr int nearest = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  return {_mm256_round_ps(a.lo, nearest), _mm256_round_ps(a.hi, nearest)};
}
inline __m256 power_of_two(__m256 n) {
  const __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
  return _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23));
}
inline F32x16 scale_by_power(F32x16 a, F32x16 n) {
  return {_mm256_mul_ps(a.lo, power_of_two(n.lo)), _mm256_mul_ps(a.hi, power_of_two(n.hi))};
}

// One register of the two.
using Register = __m256;
constexpr int kRegisterLanes = 8;
inline Register zero_register() { return _mm256_setzero_ps(); }
inline Register load_register(const float* from) { return _mm256_loadu_ps(from); }
inline void store_register(float* to, Register a) { _mm256_storeu_ps(to, a); }
inline Register fma_register(Register a, Register b, Register c) { return _mm256_fmadd_ps(a, b, c); }
// All lanes: from memory, except the last register.
inline F32x16 with_last_register(const float* from, Register last) { return {_mm256_loadu_ps(from), last}; }

inline float reduce_add(F32x16 a) {
  const __m256 s8 = _mm256_add_ps(a.lo, a.hi);
  const __m128 s4 = _mm_add_ps(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
  const __m128 s2 = _mm_add_ps(s4, _mm_movehl_ps(s4, s4));
  return _mm_cvtss_f32(_mm_add_ss(s2, _mm_movehdup_ps(s2)));
}
// reduce_add of four vectors, side by side, by the same tree.
inline void reduce_add4(const F32x16* v, float* to) {
  __m256 s8[4];
  for (int i = 0; i < 4; i++) s8[i] = _mm256_add_ps(v[i].lo, v[i].hi);
  const __m256 ab =
      _mm256_add_ps(_mm256_permute2f128_ps(s8[0], s8[1], 0x20), _mm256_permute2f128_ps(s8[0], s8[1], 0x31));
  const __m256 cd =
      _mm256_add_ps(_mm256_permute2f128_ps(s8[2], s8[3], 0x20), _mm256_permute2f128_ps(s8[2], s8[3], 0x31));
  const __m256 s2 = _mm256_add_ps(_mm256_shuffle_ps(ab, cd, 0x44), _mm256_shuffle_ps(ab, cd, 0xee));  // a c | b d
  const __m256 s1 = _mm256_add_ps(s2, _mm256_movehdup_ps(s2));
  const __m256i order = _mm256_setr_epi32(0, 4, 2, 6, 0, 0, 0, 0);
  _mm_storeu_ps(to, _mm256_castps256_ps128(_mm256_permutevar8x32_ps(s1, order)));
}
inline float reduce_max(F32x16 a) {
  const __m256 m8 = _mm256_max_ps(a.lo, a.hi);
  const __m128 m4 = _mm_max_ps(_mm256_castps256_ps128(m8), _mm256_extractf128_ps(m8, 1));
  const __m128 m2 = _mm_max_ps(m4, _mm_movehl_ps(m4, m4));
  return _mm_cvtss_f32(_mm_max_ss(m2, _mm_movehdup_ps(m2)));
}

inline float f32_from_f16(uint16_t h) { return half_table[h]; }

inline __m128i load_16_bytes(const uint8_t* from) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from)); }

inline F32x16 from_f16(const uint8_t* from) {
  return {_mm256_cvtph_ps(load_16_bytes(from)), _mm256_cvtph_ps(load_16_bytes(from + 16))};
}
inline __m256 widen_bf16(__m128i h) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16)); }
inline F32x16 from_bf16(const uint8_t* from) {
  return {widen_bf16(load_16_bytes(from)), widen_bf16(load_16_bytes(from + 16))};
}
// Eight at a time, each widened as it is loaded: moving the upper half of sixteen down costs a shuffle.
inline __m128i load_8_bytes(const uint8_t* from) { return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(from)); }
inline F32x16 from_i8(const uint8_t* from) {
  return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(load_8_bytes(from))),
          _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(load_8_bytes(from + 8)))};
}

inline void store_f16(uint8_t* to, F32x16 a) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm256_cvtps_ph(a.lo, _MM_FROUND_TO_NEAREST_INT));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to + 16), _mm256_cvtps_ph(a.hi, _MM_FROUND_TO_NEAREST_INT));
}
inline void store_i8(uint8_t* to, F32x16 a) {
  // Packing works within halves of a register; the permutation puts its quarters in order.
  const __m256i mixed = _mm256_packs_epi32(_mm256_cvtps_epi32(a.lo), _mm256_cvtps_epi32(a.hi));
  const __m256i words = _mm256_permute4x64_epi64(mixed, 0xd8);
  const __m128i bytes = _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), bytes);
}

struct U8x16 {
  __m128i v;
};
inline U8x16 load_bytes(const uint8_t* from) { return {load_16_bytes(from)}; }
inline U8x16 low_nibbles(U8x16 a) { return {_mm_and_si128(a.v, _mm_set1_epi8(15))}; }
inline U8x16 high_nibbles(U8x16 a) { return {_mm_and_si128(_mm_srli_epi16(a.v, 4), _mm_set1_epi8(15))}; }
template <int Shift, int Up>
inline U8x16 bit_field(U8x16 a, uint8_t mask) {
  // One shift by the difference, then the mask, which also clears bits that crossed a byte.
  const __m128i kept = _mm_set1_epi8(static_cast<char>(mask << Up));
  if constexpr (Shift > Up) return {_mm_and_si128(_mm_srli_epi16(a.v, Shift - Up), kept)};
  else return {_mm_and_si128(_mm_slli_epi16(a.v, Up - Shift), kept)};
}
inline U8x16 either(U8x16 a, U8x16 b) { return {_mm_or_si128(a.v, b.v)}; }
inline F32x16 from_u8(U8x16 a) {
  return {_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(a.v)),
          _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_srli_si128(a.v, 8)))};
}

// Sixteen bytes of two nibbles, widened as they are loaded, once for both; no mask is needed above the high ones.
struct NibblePairs {
  __m256i lo, hi;
};
inline NibblePairs load_nibble_pairs(const uint8_t* from) {
  return {_mm256_cvtepu8_epi32(load_8_bytes(from)), _mm256_cvtepu8_epi32(load_8_bytes(from + 8))};
}
inline F32x16 low_nibbles(NibblePairs a) {
  const __m256i mask = _mm256_set1_epi32(15);
  return {_mm256_cvtepi32_ps(_mm256_and_si256(a.lo, mask)), _mm256_cvtepi32_ps(_mm256_and_si256(a.hi, mask))};
}
inline F32x16 high_nibbles(NibblePairs a) {
  return {_mm256_cvtepi32_ps(_mm256_srli_epi32(a.lo, 4)), _mm256_cvtepi32_ps(_mm256_srli_epi32(a.hi, 4))};
}

}  // namespace CQIL_ISA
}  // namespace cqil

#include "nibble_map.h"
