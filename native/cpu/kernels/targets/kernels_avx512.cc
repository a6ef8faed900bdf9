// The kernels for AVX-512 (F, BW, DQ, VL). Compiled with that instruction set's flags, so nothing here may be included
// elsewhere.
#include <math.h>

#define CQIL_ISA isa_avx512
#define CQIL_MATVEC_ROWS 4
#define CQIL_TILE_ROWS 4
#define CQIL_TILE_TOKENS 6
#define CQIL_ATTEND_SUMS 16
#include "../simd/f32x16_avx512.h"
#include "kernels_inl.h"
#include "../ops/bf16_as_floats_inl.h"
#include "bf16_table.h"

namespace cqil {

constexpr Kernels kernels_avx512 = CQIL_ISA::make_kernels("avx512");
constexpr RoundedKernels bf16_avx512 = CQIL_ISA::make_bf16_kernels("avx512", false);

}  // namespace cqil
