// The kernels for AVX2 with FMA and F16C. Compiled with that instruction set's flags, so nothing here may be included
// elsewhere.
#include <math.h>

#define CQIL_ISA isa_avx2
#define CQIL_MATVEC_ROWS 4
#define CQIL_TILE_ROWS 4
#define CQIL_TILE_TOKENS 3
#define CQIL_ATTEND_SUMS 4
#include "../simd/f32x16_avx2.h"
#include "kernels_inl.h"
#include "../ops/bf16_as_floats_inl.h"
#include "bf16_table.h"

namespace cqil {

constexpr Kernels kernels_avx2 = CQIL_ISA::make_kernels("avx2");
constexpr RoundedKernels bf16_avx2 = CQIL_ISA::make_bf16_kernels("avx2", false);

}  // namespace cqil
