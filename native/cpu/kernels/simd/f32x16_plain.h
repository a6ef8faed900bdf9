// Sixteen float32 lanes in plain C++: the readable twin of the vector versions, and the engine where there is none.
// Multiplies and adds round separately here, fused elsewhere, so results agree to rounding, not to the bit.
#pragma once
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "../../../core/half.h"
#include "half_table.h"

namespace cqil {
namespace CQIL_ISA {

struct F32x16 {
  float lane[16];
};

#define CQIL_EACH_LANE for (int i = 0; i < 16; i++)

inline F32x16 zero() { return {}; }
inline F32x16 broadcast(float value) {
  F32x16 r;
  CQIL_EACH_LANE r.lane[i] = value;
  return r;
}
inline F32x16 load(const float* from) {
  F32x16 r;
  memcpy(r.lane, from, sizeof r.lane);
  return r;
}
// n of 16 lanes, the rest zero.
inline F32x16 load_partial(const float* from, int n) {
  F32x16 r = {};
  memcpy(r.lane, from, static_cast<size_t>(n) * sizeof(float));
  return r;
}
inline void store(float* to, const F32x16& v) { memcpy(to, v.lane, sizeof v.lane); }
inline void store_partial(float* to, const F32x16& v, int n) {
  memcpy(to, v.lane, static_cast<size_t>(n) * sizeof(float));
}

inline F32x16 add(const F32x16& a, const F32x16& b) {
  F32x16 r;
  CQIL_EACH_LANE r.lane[i] = a.lane[i] + b.lane[i];
  return r;
}
inline F32x16 sub(const F32x16& a, const F32x16& b) {
  F32x16 r;
  CQIL_EACH_LANE r.lane[i] = a.lane[i] - b.lane[i];
  return r;
}
inline F32x16 mul(const F32x16& a, const F32x16& b) {
  F32x16 r;
  CQIL_EACH_LANE r.lane[i] = a.lane[i] * b.lane[i];
  return r;
}
inline F32x16 div(const F32x16& a, const F32x16& b) {
  F32x16 r;
  CQIL_EACH_LANE r.lane[i] = a.lane[i] / b.lane[i];
  return r;
}
// a * b + c
inline F32x16 fma(const F32x16& a, const F32x16& b, const F32x16& c) {
  F32x16 r;
  CQIL_EACH_LANE r.lane[i] = a.lane[i] * b.lane[i] + c.lane[i];
  return r;
}
inline F32x16 max(const F32x16& a, const F32x16& b) {
  F32x16 r;
  CQIL_EACH_LANE r.lane[i] = a.lane[i] > b.lane[i] ? a.lane[i] : b.lane[i];
  return r;
}
inline F32x16 min(const F32x16& a, const F32x16& b) {
  F32x16 r;
  CQIL_EACH_LANE r.lane[i] = a.lane[i] < b.lane[i] ? a.lane[i] : b.lane[i];
  return r;
}
// To the nearest integer, ties to even.
inline F32x16 round(const F32x16& a) {
  F32x16 r;
  CQIL_EACH_LANE r.lane[i] = nearbyintf(a.lane[i]);
  return r;
}
// v * 2^n for integral n in [-126, 127].
inline F32x16 scale_by_power(const F32x16& v, const F32x16& n) {
  F32x16 r;
  CQIL_EACH_LANE {
    const uint32_t bits = static_cast<uint32_t>(static_cast<int32_t>(n.lane[i]) + 127) << 23;
    float power;
    memcpy(&power, &bits, sizeof power);
    r.lane[i] = v.lane[i] * power;
  }
  return r;
}

// Halves are added, 8 then 4 then 2 then 1 lanes: the same tree everywhere.
inline float reduce_add(const F32x16& v) {
  float s[16];
  memcpy(s, v.lane, sizeof s);
  for (int half = 8; half > 0; half /= 2)
    for (int i = 0; i < half; i++) s[i] += s[i + half];
  return s[0];
}
// reduce_add of four vectors, side by side.
inline void reduce_add4(const F32x16* v, float* to) {
  for (int i = 0; i < 4; i++) to[i] = reduce_add(v[i]);
}
inline float reduce_max(const F32x16& v) {
  float m = v.lane[0];
  CQIL_EACH_LANE if (v.lane[i] > m) m = v.lane[i];
  return m;
}

inline float f32_from_f16(uint16_t h) { return half_table[h]; }

inline F32x16 from_f16(const uint8_t* from) {
  F32x16 r;
  CQIL_EACH_LANE {
    uint16_t h;
    memcpy(&h, from + 2 * i, sizeof h);
    r.lane[i] = f32_from_f16(h);
  }
  return r;
}
inline F32x16 from_bf16(const uint8_t* from) {
  F32x16 r;
  CQIL_EACH_LANE {
    uint16_t h;
    memcpy(&h, from + 2 * i, sizeof h);
    const uint32_t bits = static_cast<uint32_t>(h) << 16;
    memcpy(&r.lane[i], &bits, sizeof bits);
  }
  return r;
}
inline F32x16 from_i8(const uint8_t* from) {
  F32x16 r;
  CQIL_EACH_LANE r.lane[i] = static_cast<float>(static_cast<int8_t>(from[i]));
  return r;
}

// To the nearest f16, ties to even: 32 bytes.
inline void store_f16(uint8_t* to, const F32x16& v) {
  CQIL_EACH_LANE {
    const uint16_t h = f16_from_float(v.lane[i]);
    memcpy(to + 2 * i, &h, sizeof h);
  }
}
// To the nearest integer, ties to even, of lanes in [-127, 127]: 16 bytes.
inline void store_i8(uint8_t* to, const F32x16& v) {
  CQIL_EACH_LANE to[i] = static_cast<uint8_t>(static_cast<int8_t>(nearbyintf(v.lane[i])));
}

// Sixteen unsigned bytes, for unpacking narrow weights.
struct U8x16 {
  uint8_t lane[16];
};
inline U8x16 load_bytes(const uint8_t* from) {
  U8x16 r;
  memcpy(r.lane, from, sizeof r.lane);
  return r;
}
inline U8x16 low_nibbles(const U8x16& v) {
  U8x16 r;
  CQIL_EACH_LANE r.lane[i] = v.lane[i] & 15;
  return r;
}
inline U8x16 high_nibbles(const U8x16& v) {
  U8x16 r;
  CQIL_EACH_LANE r.lane[i] = v.lane[i] >> 4;
  return r;
}
// (v >> Shift & mask) << Up, lane by lane; the result fits a byte.
template <int Shift, int Up>
inline U8x16 bit_field(const U8x16& v, uint8_t mask) {
  U8x16 r;
  CQIL_EACH_LANE r.lane[i] = static_cast<uint8_t>((v.lane[i] >> Shift & mask) << Up);
  return r;
}
inline U8x16 either(const U8x16& a, const U8x16& b) {
  U8x16 r;
  CQIL_EACH_LANE r.lane[i] = a.lane[i] | b.lane[i];
  return r;
}
inline F32x16 from_u8(const U8x16& v) {
  F32x16 r;
  CQIL_EACH_LANE r.lane[i] = static_cast<float>(v.lane[i]);
  return r;
}

#undef CQIL_EACH_LANE

}  // namespace CQIL_ISA
}  // namespace cqil

#include "nibble_pairs.h"

#include "nibble_map.h"  // over NibblePairs
#include "whole_register.h"
