// Sixteen lanes of 32 bits in four NEON registers, each an integer or four bytes. Meanings as in lanes_plain.h. With
// CQIL_DOTPROD products are those of the dot-product extension, otherwise NEON's own.
#pragma once
#include "f32x16_neon.h"

namespace cqil {
namespace CQIL_ISA {

struct U32x16 {
  uint32x4_t q[4];
};

#define CQIL_EACH_QUAD for (int i = 0; i < 4; i++)

inline U32x16 splat(uint32_t value) {
  U32x16 r;
  CQIL_EACH_QUAD r.q[i] = vdupq_n_u32(value);
  return r;
}
inline U32x16 load_lanes(const uint8_t* from) {
  U32x16 r;
  CQIL_EACH_QUAD r.q[i] = vreinterpretq_u32_u8(vld1q_u8(from + 16 * i));
  return r;
}
inline void store_lanes(uint8_t* to, U32x16 a) { CQIL_EACH_QUAD vst1q_u8(to + 16 * i, vreinterpretq_u8_u32(a.q[i])); }
inline U32x16 bits_and(U32x16 a, U32x16 b) {
  CQIL_EACH_QUAD a.q[i] = vandq_u32(a.q[i], b.q[i]);
  return a;
}
inline U32x16 bits_or(U32x16 a, U32x16 b) {
  CQIL_EACH_QUAD a.q[i] = vorrq_u32(a.q[i], b.q[i]);
  return a;
}
// Shifts by a register, which unlike those by a constant take zero.
template <int N>
inline U32x16 shift_left(U32x16 a) {
  CQIL_EACH_QUAD a.q[i] = vshlq_u32(a.q[i], vdupq_n_s32(N));
  return a;
}
template <int N>
inline U32x16 shift_right(U32x16 a) {
  return shift_left<-N>(a);
}
template <int N>
inline U32x16 shift_right_signed(U32x16 a) {
  CQIL_EACH_QUAD a.q[i] = vreinterpretq_u32_s32(vshlq_s32(vreinterpretq_s32_u32(a.q[i]), vdupq_n_s32(-N)));
  return a;
}
inline F32x16 to_float(U32x16 a) {
  F32x16 r;
  CQIL_EACH_QUAD r.q[i] = vcvtq_f32_s32(vreinterpretq_s32_u32(a.q[i]));
  return r;
}
inline F32x16 from_low_halves(U32x16 a) {
  F32x16 r;
  CQIL_EACH_QUAD r.q[i] = vcvt_f32_f16(vreinterpret_f16_u16(vmovn_u32(a.q[i])));
  return r;
}

// All formats' bytes fit signed ones.
template <class W>
using Weights4 = U32x16;
template <class W>
inline const U32x16& prepare(const U32x16& w) {
  return w;
}

inline int8x16_t as_bytes(uint32x4_t v) { return vreinterpretq_s8_u32(v); }

#ifdef CQIL_DOTPROD

template <class W>
struct Dot4 {
  int32x4_t sum[4];
};
template <class W>
inline Dot4<W> begin(int32_t less) {
  Dot4<W> dot;
  CQIL_EACH_QUAD dot.sum[i] = vdupq_n_s32(W::kOffsetBits ? less * (1 << W::kOffsetBits) : 0);
  return dot;
}
template <class W>
inline void add_dot4(Dot4<W>& dot, const U32x16& w, const U32x16& x, int) {
  CQIL_EACH_QUAD dot.sum[i] = vdotq_s32(dot.sum[i], as_bytes(w.q[i]), as_bytes(x.q[i]));
}
template <class W>
inline U32x16 total(const Dot4<W>& dot, int32_t) {
  U32x16 r;
  CQIL_EACH_QUAD r.q[i] = vreinterpretq_u32_s32(dot.sum[i]);
  return r;
}

#else

// Sums of two products, which together are a lane's: of lanes 4 i and 4 i + 1 in low[i], of the next two in high[i].
template <class W>
struct Dot4 {
  int32x4_t low[4], high[4];
};
template <class W>
inline Dot4<W> begin(int32_t) {
  Dot4<W> dot;
  CQIL_EACH_QUAD dot.low[i] = dot.high[i] = vdupq_n_s32(0);
  return dot;
}
template <class W>
inline void add_dot4(Dot4<W>& dot, const U32x16& w, const U32x16& x, int) {
  CQIL_EACH_QUAD {
    const int8x16_t a = as_bytes(w.q[i]), b = as_bytes(x.q[i]);
    dot.low[i] = vpadalq_s16(dot.low[i], vmull_s8(vget_low_s8(a), vget_low_s8(b)));
    dot.high[i] = vpadalq_s16(dot.high[i], vmull_high_s8(a, b));
  }
}
template <class W>
inline U32x16 total(const Dot4<W>& dot, int32_t less) {
  const int32x4_t offset = vdupq_n_s32(W::kOffsetBits ? less * (1 << W::kOffsetBits) : 0);
  U32x16 r;
  CQIL_EACH_QUAD r.q[i] = vreinterpretq_u32_s32(vaddq_s32(vpaddq_s32(dot.low[i], dot.high[i]), offset));
  return r;
}

#endif

#undef CQIL_EACH_QUAD

template <class W>
constexpr int kStreams = 2;
constexpr int64_t kStreamBytes = 0;

}  // namespace CQIL_ISA
}  // namespace cqil

#include "sixteen_lanes.h"
