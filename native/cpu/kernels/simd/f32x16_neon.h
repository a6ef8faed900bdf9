// Sixteen float32 lanes in four NEON registers (AArch64). Meanings as in f32x16_plain.h, with fused multiply-adds.
#pragma once
#include <arm_neon.h>
#include <stdint.h>
#include <string.h>

namespace cqil {
namespace CQIL_ISA {

struct F32x16 {
  float32x4_t q[4];
};

#define CQIL_EACH_QUAD for (int i = 0; i < 4; i++)

inline F32x16 broadcast(float value) {
  F32x16 r;
  CQIL_EACH_QUAD r.q[i] = vdupq_n_f32(value);
  return r;
}
inline F32x16 zero() { return broadcast(0.0f); }
inline F32x16 load(const float* from) {
  F32x16 r;
  CQIL_EACH_QUAD r.q[i] = vld1q_f32(from + 4 * i);
  return r;
}
inline F32x16 load_partial(const float* from, int n) {
  float lanes[16] = {};
  memcpy(lanes, from, static_cast<size_t>(n) * sizeof(float));
  return load(lanes);
}
inline void store(float* to, F32x16 a) { CQIL_EACH_QUAD vst1q_f32(to + 4 * i, a.q[i]); }
inline void store_partial(float* to, F32x16 a, int n) {
  float lanes[16];
  store(lanes, a);
  memcpy(to, lanes, static_cast<size_t>(n) * sizeof(float));
}

#define CQIL_LANEWISE(name, intrinsic)                 \
  inline F32x16 name(F32x16 a, F32x16 b) {             \
    F32x16 r;                                          \
    CQIL_EACH_QUAD r.q[i] = intrinsic(a.q[i], b.q[i]); \
    return r;                                          \
  }
CQIL_LANEWISE(add, vaddq_f32)
CQIL_LANEWISE(sub, vsubq_f32)
CQIL_LANEWISE(mul, vmulq_f32)
CQIL_LANEWISE(div, vdivq_f32)
CQIL_LANEWISE(max, vmaxq_f32)
CQIL_LANEWISE(min, vminq_f32)
#undef CQIL_LANEWISE

inline F32x16 fma(F32x16 a, F32x16 b, F32x16 c) {
  F32x16 r;
  CQIL_EACH_QUAD r.q[i] = vfmaq_f32(c.q[i], a.q[i], b.q[i]);
  return r;
}
inline F32x16 round(F32x16 a) {
  F32x16 r;
  CQIL_EACH_QUAD r.q[i] = vrndnq_f32(a.q[i]);
  return r;
}
inline F32x16 scale_by_power(F32x16 a, F32x16 n) {
  F32x16 r;
  CQIL_EACH_QUAD {
    const int32x4_t exponent = vaddq_s32(vcvtnq_s32_f32(n.q[i]), vdupq_n_s32(127));
    r.q[i] = vmulq_f32(a.q[i], vreinterpretq_f32_s32(vshlq_n_s32(exponent, 23)));
  }
  return r;
}

// One register of the four.
using Register = float32x4_t;
constexpr int kRegisterLanes = 4;
inline Register zero_register() { return vdupq_n_f32(0.0f); }
inline Register load_register(const float* from) { return vld1q_f32(from); }
inline void store_register(float* to, Register a) { vst1q_f32(to, a); }
inline Register fma_register(Register a, Register b, Register c) { return vfmaq_f32(c, a, b); }
// All lanes: from memory, except the last register.
inline F32x16 with_last_register(const float* from, Register last) {
  return {{vld1q_f32(from), vld1q_f32(from + 4), vld1q_f32(from + 8), last}};
}

inline float reduce_add(F32x16 a) {
  const float32x4_t s4 = vaddq_f32(vaddq_f32(a.q[0], a.q[2]), vaddq_f32(a.q[1], a.q[3]));
  const float32x2_t s2 = vadd_f32(vget_low_f32(s4), vget_high_f32(s4));
  return vget_lane_f32(s2, 0) + vget_lane_f32(s2, 1);
}
// reduce_add of four vectors, side by side.
inline void reduce_add4(const F32x16* v, float* to) {
  for (int i = 0; i < 4; i++) to[i] = reduce_add(v[i]);
}
inline float reduce_max(F32x16 a) {
  return vmaxvq_f32(vmaxq_f32(vmaxq_f32(a.q[0], a.q[1]), vmaxq_f32(a.q[2], a.q[3])));
}

inline float f32_from_f16(uint16_t h) { return vgetq_lane_f32(vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(h))), 0); }
inline F32x16 from_f16(const uint8_t* from) {
  F32x16 r;
  CQIL_EACH_QUAD r.q[i] = vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(from + 8 * i)));
  return r;
}
inline F32x16 from_bf16(const uint8_t* from) {
  F32x16 r;
  CQIL_EACH_QUAD r.q[i] = vreinterpretq_f32_u32(vshll_n_u16(vreinterpret_u16_u8(vld1_u8(from + 8 * i)), 16));
  return r;
}
inline F32x16 from_i8(const uint8_t* from) {
  const int8x16_t v = vreinterpretq_s8_u8(vld1q_u8(from));
  const int16x8_t lo = vmovl_s8(vget_low_s8(v)), hi = vmovl_s8(vget_high_s8(v));
  return {{vcvtq_f32_s32(vmovl_s16(vget_low_s16(lo))), vcvtq_f32_s32(vmovl_s16(vget_high_s16(lo))),
           vcvtq_f32_s32(vmovl_s16(vget_low_s16(hi))), vcvtq_f32_s32(vmovl_s16(vget_high_s16(hi)))}};
}

inline void store_f16(uint8_t* to, F32x16 a) {
  CQIL_EACH_QUAD vst1_u8(to + 8 * i, vreinterpret_u8_f16(vcvt_f16_f32(a.q[i])));
}
inline void store_i8(uint8_t* to, F32x16 a) {
  auto words = [&](int i) {
    return vcombine_s16(vqmovn_s32(vcvtnq_s32_f32(a.q[i])), vqmovn_s32(vcvtnq_s32_f32(a.q[i + 1])));
  };
  vst1q_s8(reinterpret_cast<int8_t*>(to), vcombine_s8(vqmovn_s16(words(0)), vqmovn_s16(words(2))));
}

struct U8x16 {
  uint8x16_t v;
};
inline U8x16 load_bytes(const uint8_t* from) { return {vld1q_u8(from)}; }
inline U8x16 low_nibbles(U8x16 a) { return {vandq_u8(a.v, vdupq_n_u8(15))}; }
inline U8x16 high_nibbles(U8x16 a) { return {vshrq_n_u8(a.v, 4)}; }
template <int Shift, int Up>
inline U8x16 bit_field(U8x16 a, uint8_t mask) {
  // vshrq needs a shift of at least one; vshlq takes zero and negative ones.
  const uint8x16_t shifted = vshlq_u8(a.v, vdupq_n_s8(-Shift));
  return {vshlq_u8(vandq_u8(shifted, vdupq_n_u8(mask)), vdupq_n_s8(Up))};
}
inline U8x16 either(U8x16 a, U8x16 b) { return {vorrq_u8(a.v, b.v)}; }
inline F32x16 from_u8(U8x16 a) {
  const uint16x8_t lo = vmovl_u8(vget_low_u8(a.v)), hi = vmovl_u8(vget_high_u8(a.v));
  return {{vcvtq_f32_u32(vmovl_u16(vget_low_u16(lo))), vcvtq_f32_u32(vmovl_u16(vget_high_u16(lo))),
           vcvtq_f32_u32(vmovl_u16(vget_low_u16(hi))), vcvtq_f32_u32(vmovl_u16(vget_high_u16(hi)))}};
}

#undef CQIL_EACH_QUAD

}  // namespace CQIL_ISA
}  // namespace cqil

#include "nibble_pairs.h"

#include "nibble_map.h"  // over NibblePairs
