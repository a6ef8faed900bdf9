// int8 products with AArch64 NEON.
#include <math.h>

#define CQIL_ISA isa_int8_neon
#define CQIL_INT8_ASKS false
#define CQIL_INT8_SETS 1
#define CQIL_INT8_TOKENS 2
#include "../simd/lanes_neon.h"
#include "../ops/int8_products_inl.h"

namespace cqil {

constexpr RoundedKernels int8_neon = CQIL_ISA::make_int8_kernels("neon");

}  // namespace cqil
