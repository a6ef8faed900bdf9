// Products with activations rounded to int8.
//
// A row x is rounded in blocks of 32: q = x * (1 / d) to the nearest integer, ties to even, d = max|x| / 127. A product
// is
//   y = sum over groups g of scale_g * (d * (sum of w q) - offset_g' ...) in ascending order
// where a group is 32 weights that share a scale (16 in Q6_K), the inner sum is exact in int32, and what is added per
// group is fma(inner * d, scale, y). The chain of one value depends on its length alone, so its bits do not depend on
// how rows, tokens and threads are split, nor, where multiply-adds are fused, on the instruction set.
#pragma once
#include <stdint.h>

#include "rounded_kernels.h"

// Extensions that some compilers of C++17 do not know, or only when all of the code may use them.
#if defined(__clang__) ? __clang_major__ >= 12 : defined(__GNUC__) && __GNUC__ >= 11
#define CQIL_HAS_AVXVNNI 1
#elif !defined(__clang__) && defined(_MSC_VER) && _MSC_VER >= 1930
#define CQIL_HAS_AVXVNNI 1
#endif
#if defined(__clang__) ? __clang_major__ >= 16 || defined(__ARM_FEATURE_DOTPROD) : defined(__GNUC__)
#define CQIL_HAS_DOTPROD 1
#endif

namespace cqil {

// Activations that share a scale.
constexpr int64_t kInt8Block = 32;
// Matrices are multiplied as interleaved rows, which take as many bytes as the rows did, in whole multiples of this
// many rows. How many are interleaved depends on the instruction set, how in int8_formats.h.
constexpr int64_t kInt8Rows = 16;

// One rounded row of n values, n a multiple of kInt8Block, in memory of int8_row_bytes(n) on a 64-byte boundary.
struct Int8Row {
  int8_t* q;            // [n]
  float* scale;         // [n / 32] d
  int32_t* less;        // [n / 32] minus the sum of a block's q
  int32_t* less_by_16;  // [n / 16] the same of each half of a block
};

constexpr int64_t int8_lines(int64_t bytes) { return (bytes + 63) / 64 * 64; }
constexpr int64_t int8_row_bytes(int64_t n) {
  return int8_lines(n) + 2 * int8_lines(n / 32 * 4) + int8_lines(n / 16 * 4);
}
inline Int8Row int8_row(uint8_t* at, int64_t n) {
  const int64_t scale = int8_lines(n), less = scale + int8_lines(n / 32 * 4), by_16 = less + int8_lines(n / 32 * 4);
  return {reinterpret_cast<int8_t*>(at), reinterpret_cast<float*>(at + scale), reinterpret_cast<int32_t*>(at + less),
          reinterpret_cast<int32_t*>(at + by_16)};
}

extern const RoundedKernels int8_plain, int8_avx2, int8_avxvnni, int8_avx512vnni, int8_neon, int8_dotprod;

}  // namespace cqil
