// int8 products with AVX-512 VNNI. Compiled with the flags of AVX-512; VNNI is asked for here, so that no compiler
// needs a flag for it.
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx512vnni"))), apply_to = function)
#elif defined(__GNUC__)
#pragma GCC target("avx512vnni")
#endif
#include <math.h>

#define CQIL_ISA isa_int8_avx512vnni
#define CQIL_INT8_ASKS true
#define CQIL_INT8_SETS 2
#define CQIL_INT8_TOKENS 6
#include "../simd/lanes_avx512vnni.h"
#include "../ops/int8_products_inl.h"

namespace cqil {

constexpr RoundedKernels int8_avx512vnni = CQIL_ISA::make_int8_kernels("avx512vnni");

}  // namespace cqil
#ifdef __clang__
#pragma clang attribute pop
#endif
