// How each dtype unpacks: every format is a struct made of the address of one block, with
//   kBlock             weights per block, a multiple of 16
//   kBytes             bytes of a block
//   kParts             parts a block is unpacked in, so that several rows can take turns part by part
//   part<C>(f)         calls f(i, values) for the 16-weight runs i of part C, ascending: weights 16 i … 16 i + 15 of
//                      the block as float32
// and, for formats whose rows need not be whole blocks, partial(from, n): n < 16 weights, the rest zero.
// Block layouts are those of GGUF. Unpacked values are the same bits on every instruction set with fused multiply-add.
#pragma once
#include <stdint.h>
#include <string.h>

namespace cqil {
namespace CQIL_ISA {

inline uint16_t read_u16(const uint8_t* from) {
  uint16_t value;
  memcpy(&value, from, sizeof value);
  return value;
}
inline float read_f16(const uint8_t* from) { return f32_from_f16(read_u16(from)); }

struct WeightF32 {
  static constexpr int kBlock = 16, kBytes = 64, kParts = 1;
  const uint8_t* block;
  template <int C, class F>
  inline void part(F f) const {
    f(0, load(reinterpret_cast<const float*>(block)));
  }
  static inline F32x16 partial(const uint8_t* from, int n) {
    return load_partial(reinterpret_cast<const float*>(from), n);
  }
};

struct WeightF16 {
  static constexpr int kBlock = 16, kBytes = 32, kParts = 1;
  const uint8_t* block;
  template <int C, class F>
  inline void part(F f) const {
    f(0, from_f16(block));
  }
  static inline F32x16 partial(const uint8_t* from, int n) {
    uint8_t padded[32] = {};
    memcpy(padded, from, static_cast<size_t>(n) * 2);
    return from_f16(padded);
  }
};

struct WeightBF16 {
  static constexpr int kBlock = 16, kBytes = 32, kParts = 1;
  const uint8_t* block;
  template <int C, class F>
  inline void part(F f) const {
    f(0, from_bf16(block));
  }
  static inline F32x16 partial(const uint8_t* from, int n) {
    uint8_t padded[32] = {};
    memcpy(padded, from, static_cast<size_t>(n) * 2);
    return from_bf16(padded);
  }
};

// f16 d, 32 x int8 q: w = d q.
struct WeightQ8_0 {
  static constexpr int kBlock = 32, kBytes = 34, kParts = 1;
  const uint8_t* block;
  template <int C, class F>
  inline void part(F f) const {
    const F32x16 d = broadcast(read_f16(block));
    f(0, mul(from_i8(block + 2), d));
    f(1, mul(from_i8(block + 18), d));
  }
};

// f16 d, 16 bytes; weight i in the low nibble of byte i, weight 16 + i in its high nibble: w = d (q - 8).
struct WeightQ4_0 {
  static constexpr int kBlock = 32, kBytes = 18, kParts = 1;
  const uint8_t* block;
  template <int C, class F>
  inline void part(F f) const {
    const NibbleMap map = centered_nibble_map(broadcast(read_f16(block)));
    const NibblePairs q = load_nibble_pairs(block + 2);
    f(0, map_low(map, q));
    f(1, map_high(map, q));
  }
};

// The eight scales and offsets of a Q4_K or Q5_K block, w = scale q + offset, from two halves and 12 bytes of six bits
// each: scales 0-3 and minima 0-3 in the low bits of bytes 0-7, scales and minima 4-7 in the nibbles of bytes 8-11 with
// their top two bits above those of bytes 0-7.
struct KScales {
  float scale[16], offset[16];  // scale[0 … 7], offset[8 … 15]
  explicit KScales(const uint8_t* block) {
    uint32_t a, b, c;
    memcpy(&a, block + 4, 4);
    memcpy(&b, block + 8, 4);
    memcpy(&c, block + 12, 4);
    const uint32_t unpacked[4] = {a & 0x3f3f3f3fu, (c & 0x0f0f0f0fu) | (a >> 2 & 0x30303030u), b & 0x3f3f3f3fu,
                                  (c >> 4 & 0x0f0f0f0fu) | (b >> 2 & 0x30303030u)};
    const F32x16 values = from_u8(load_bytes(reinterpret_cast<const uint8_t*>(unpacked)));
    store(scale, mul(values, broadcast(read_f16(block))));
    store(offset, mul(values, broadcast(-read_f16(block + 2))));
  }
};

// f16 d, f16 dmin, 12 bytes of scales and minima, 128 bytes of nibbles: w = d scale q - dmin min.
struct WeightQ4_K {
  static constexpr int kBlock = 256, kBytes = 144, kParts = 4;
  const uint8_t* block;
  KScales k;
  explicit WeightQ4_K(const uint8_t* block) : block(block), k(block) {}
  template <int C, class F>
  inline void part(F f) const {
    const NibbleMap low = nibble_map(k.scale[2 * C], k.offset[8 + 2 * C]);
    const NibbleMap high = nibble_map(k.scale[2 * C + 1], k.offset[9 + 2 * C]);
    const NibblePairs q0 = load_nibble_pairs(block + 16 + 32 * C), q1 = load_nibble_pairs(block + 32 + 32 * C);
    f(4 * C, map_low(low, q0));
    f(4 * C + 1, map_low(low, q1));
    f(4 * C + 2, map_high(high, q0));
    f(4 * C + 3, map_high(high, q1));
  }
};

// As Q4_K with a fifth bit per weight: 32 bytes of high bits before the nibbles, bit j of byte i for weight 32 j + i.
struct WeightQ5_K {
  static constexpr int kBlock = 256, kBytes = 176, kParts = 4;
  const uint8_t* block;
  KScales k;
  explicit WeightQ5_K(const uint8_t* block) : block(block), k(block) {}
  template <int C, class F>
  inline void part(F f) const {
    const F32x16 low_scale = broadcast(k.scale[2 * C]), low_offset = broadcast(k.offset[8 + 2 * C]);
    const F32x16 high_scale = broadcast(k.scale[2 * C + 1]), high_offset = broadcast(k.offset[9 + 2 * C]);
    const U8x16 fifth0 = load_bytes(block + 16), fifth1 = load_bytes(block + 32);
    const U8x16 q0 = load_bytes(block + 48 + 32 * C), q1 = load_bytes(block + 64 + 32 * C);
    f(4 * C, fma(from_u8(either(low_nibbles(q0), bit_field<2 * C, 4>(fifth0, 1))), low_scale, low_offset));
    f(4 * C + 1, fma(from_u8(either(low_nibbles(q1), bit_field<2 * C, 4>(fifth1, 1))), low_scale, low_offset));
    f(4 * C + 2, fma(from_u8(either(high_nibbles(q0), bit_field<2 * C + 1, 4>(fifth0, 1))), high_scale, high_offset));
    f(4 * C + 3, fma(from_u8(either(high_nibbles(q1), bit_field<2 * C + 1, 4>(fifth1, 1))), high_scale, high_offset));
  }
};

// 128 bytes of low nibbles, 64 bytes of high bit pairs, 16 x int8 scales, f16 d: w = d scale (q - 32).
struct WeightQ6_K {
  static constexpr int kBlock = 256, kBytes = 210, kParts = 4;
  const uint8_t* block;
  // (q - 32) s as q s - 32 s: s has 19 bits, so both products are as good as exact.
  float scale[16], offset[16];
  explicit WeightQ6_K(const uint8_t* block) : block(block) {
    const F32x16 scales = mul(from_i8(block + 192), broadcast(read_f16(block + 208)));
    store(scale, scales);
    store(offset, mul(scales, broadcast(-32.0f)));
  }
  // Each half of a block is 64 bytes of nibbles and 32 of bit pairs; parts 0 and 2 are the low nibbles, 1 and 3 the
  // high.
  template <int C, class F>
  inline void part(F f) const {
    constexpr int half = C / 2, pair = C % 2 * 4, i = 4 * C;
    const uint8_t* nibbles = block + 64 * half;
    const U8x16 top0 = load_bytes(block + 128 + 32 * half), top1 = load_bytes(block + 144 + 32 * half);
    f(i, value(i, either(nibble<C % 2>(nibbles), bit_field<pair, 4>(top0, 3))));
    f(i + 1, value(i + 1, either(nibble<C % 2>(nibbles + 16), bit_field<pair, 4>(top1, 3))));
    f(i + 2, value(i + 2, either(nibble<C % 2>(nibbles + 32), bit_field<pair + 2, 4>(top0, 3))));
    f(i + 3, value(i + 3, either(nibble<C % 2>(nibbles + 48), bit_field<pair + 2, 4>(top1, 3))));
  }

 private:
  template <int High>
  static inline U8x16 nibble(const uint8_t* from) {
    if constexpr (High) return high_nibbles(load_bytes(from));
    else return low_nibbles(load_bytes(from));
  }
  inline F32x16 value(int i, U8x16 q) const { return fma(from_u8(q), broadcast(scale[i]), broadcast(offset[i])); }
};

}  // namespace CQIL_ISA
}  // namespace cqil
