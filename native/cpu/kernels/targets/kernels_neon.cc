// The kernels for AArch64 NEON. Compiled with that instruction set's flags, so nothing here may be included elsewhere.
#include <math.h>

#define CQIL_ISA isa_neon
#define CQIL_MATVEC_ROWS 4
#define CQIL_TILE_ROWS 4
#define CQIL_TILE_TOKENS 6
#define CQIL_ATTEND_SUMS 4
#include "../simd/f32x16_neon.h"
#include "kernels_inl.h"
#include "../ops/bf16_as_floats_inl.h"
#include "bf16_table.h"

namespace cqil {

constexpr Kernels kernels_neon = CQIL_ISA::make_kernels("neon");
constexpr RoundedKernels bf16_neon = CQIL_ISA::make_bf16_kernels("neon", false);

}  // namespace cqil
