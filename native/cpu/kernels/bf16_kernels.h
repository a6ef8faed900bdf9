// Products of BF16 weights with activations rounded to bf16: to the nearest, ties to even. Products are exact, and
// added in float32.
//
// Sixteen lanes are added up by one tree. Where the processor multiplies bf16, lane l takes elements 32 i + 2 l and 32
// i + 2 l + 1, and what is subnormal is zero; elsewhere rounded values are floats again, multiplied as floats are
// (kernels.h). Either order depends on the length alone.
#pragma once
#include "rounded_kernels.h"

// Compilers that know AVX512_BF16, and let its vectors be seen as vectors of integers.
#if defined(__clang__) ? __clang_major__ >= 9 : defined(__GNUC__) && __GNUC__ >= 10
#define CQIL_HAS_AVX512BF16 1
#endif

namespace cqil {

extern const RoundedKernels bf16_plain, bf16_avx2, bf16_avx512, bf16_avx512bf16, bf16_neon;

}  // namespace cqil
