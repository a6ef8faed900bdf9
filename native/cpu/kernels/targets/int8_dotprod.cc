// int8 products with the dot-product extension of AArch64, by compilers that know it. It is asked for here, so that no
// compiler needs a flag for it.
#include "../int8_kernels.h"

#if CQIL_HAS_DOTPROD
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("dotprod"))), apply_to = function)
#elif defined(__GNUC__)
#pragma GCC target("arch=armv8.2-a+dotprod")
#endif
#include <math.h>

#define CQIL_ISA isa_int8_dotprod
#define CQIL_DOTPROD
#define CQIL_INT8_ASKS false
#define CQIL_INT8_SETS 1
#define CQIL_INT8_TOKENS 3
#include "../simd/lanes_neon.h"
#include "../ops/int8_products_inl.h"

namespace cqil {

constexpr RoundedKernels int8_dotprod = CQIL_ISA::make_int8_kernels("dotprod");

}  // namespace cqil
#ifdef __clang__
#pragma clang attribute pop
#endif
#endif
