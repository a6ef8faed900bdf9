// How keys and values are kept in the cache: every format is a struct with
//   kBlock        values per block, a multiple of 16; rows are padded with zeros to whole blocks
//   bytes(n)      bytes of n values, n a multiple of kBlock
//   load(at, i)   values i … i + 15 of the blocks at `at` as float32, i a multiple of 16
//   store(x, to)  rounds one block
// Stored bytes and loaded values are the same on every instruction set. Only the bits of a NaN may differ.
#pragma once
#include <stdint.h>
#include <string.h>

#include "weight_formats.h"

namespace cqil {
namespace CQIL_ISA {

// x where it is finite, to the bit; NaN elsewhere.
inline F32x16 finite_or_nan(F32x16 x) { return fma(x, zero(), x); }

struct KvF32 {
  static constexpr int64_t kBlock = 16;
  static constexpr int64_t bytes(int64_t n) { return 4 * n; }
  static inline F32x16 load(const uint8_t* at, int i) { return CQIL_ISA::load(reinterpret_cast<const float*>(at) + i); }
  static inline void store(const float* x, uint8_t* to) {
    CQIL_ISA::store(reinterpret_cast<float*>(to), finite_or_nan(CQIL_ISA::load(x)));
  }
};

// To the nearest f16, ties to even; NaN where that is infinite, beyond 65504.
struct KvF16 {
  static constexpr int64_t kBlock = 16;
  static constexpr int64_t bytes(int64_t n) { return 2 * n; }
  static inline F32x16 load(const uint8_t* at, int i) { return from_f16(at + 2 * i); }
  static inline void store(const float* x, uint8_t* to) { store_vector(to, CQIL_ISA::load(x)); }
  static inline void store_vector(uint8_t* to, F32x16 x) {
    store_f16(to, x);
    store_f16(to, finite_or_nan(from_f16(to)));
  }
};

// GGUF's block: f16 d, 32 x int8 q, value d q, with d = max|x| / 127 and q = x / d to the nearest integer. Ties go to
// even, which vector units do; GGUF's own quantizer rounds them away from zero. As there, x is divided by d before d
// becomes an f16. d is NaN where x is not finite or d is no finite f16, from 8.3e6 on.
struct KvQ8_0 {
  static constexpr int64_t kBlock = 32;
  static constexpr int64_t bytes(int64_t n) { return n / kBlock * 34; }
  static inline F32x16 load(const uint8_t* at, int i) {
    const uint8_t* block = at + bytes(i);
    return mul(from_i8(block + 2 + i % kBlock), broadcast(read_f16(block)));
  }
  static inline void store(const float* x, uint8_t* to) {
    const F32x16 a = CQIL_ISA::load(x), b = CQIL_ISA::load(x + 16);
    const float d = reduce_max(max(magnitude(a), magnitude(b))) / 127.0f;
    const F32x16 none = fma(a, zero(), mul(b, zero()));  // zeros, and NaN where x is not finite: magnitudes may have
                                                         // lost it
    uint8_t halves[32];
    KvF16::store_vector(halves, broadcast(d + reduce_add(none)));
    memcpy(to, halves, 2);
    const F32x16 divisor = broadcast(d > 0 ? d : 1.0f);
    store_i8(to + 2, clamp(div(a, divisor)));
    store_i8(to + 18, clamp(div(b, divisor)));
  }

 private:
  static inline F32x16 magnitude(F32x16 v) { return max(v, sub(zero(), v)); }
  // What is not finite, and quotients by a d that has lost its bits, would not fit a byte.
  static inline F32x16 clamp(F32x16 q) { return min(max(q, broadcast(-127.0f)), broadcast(127.0f)); }
};

}  // namespace CQIL_ISA
}  // namespace cqil
