// int8 products with AVX2. Compiled with that instruction set's flags, so nothing here may be included elsewhere.
#include <math.h>

#define CQIL_ISA isa_int8_avx2
#define CQIL_INT8_ASKS false
#define CQIL_INT8_SETS 2
#define CQIL_INT8_TOKENS 3
#include "../simd/lanes_avx2.h"
#include "../ops/int8_products_inl.h"

namespace cqil {

constexpr RoundedKernels int8_avx2 = CQIL_ISA::make_int8_kernels("avx2");

}  // namespace cqil
