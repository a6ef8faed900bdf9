// int8 products in plain C++, on any machine.
#include <math.h>

#define CQIL_ISA isa_int8_plain
#define CQIL_INT8_ASKS false
#define CQIL_INT8_SETS 1
#define CQIL_INT8_TOKENS 1
#define CQIL_KEEP_LOOPS  // a fifth less time for a token at Q8_0, a ninth of the time to compile
#include "../simd/lanes_plain.h"
#include "../ops/int8_products_inl.h"

namespace cqil {

constexpr RoundedKernels int8_plain = CQIL_ISA::make_int8_kernels("plain");

}  // namespace cqil
