// int8 products with AVX-VNNI, by compilers that know it. Compiled with the flags of AVX2; VNNI is asked for here, so
// that no compiler needs a flag for it.
#include "../int8_kernels.h"

#if CQIL_HAS_AVXVNNI
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avxvnni"))), apply_to = function)
#elif defined(__GNUC__)
#pragma GCC target("avxvnni")
#endif
#include <math.h>

#define CQIL_ISA isa_int8_avxvnni
#define CQIL_AVXVNNI
#define CQIL_INT8_ASKS true
#define CQIL_INT8_SETS 2
#define CQIL_INT8_TOKENS 3
#include "../simd/lanes_avx2.h"
#include "../ops/int8_products_inl.h"

namespace cqil {

constexpr RoundedKernels int8_avxvnni = CQIL_ISA::make_int8_kernels("avxvnni");

}  // namespace cqil
#ifdef __clang__
#pragma clang attribute pop
#endif
#endif
