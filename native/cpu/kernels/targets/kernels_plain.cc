// The kernels for plain C++, on any machine. Compiled with that instruction set's flags, so nothing here may be
// included elsewhere.
#include <math.h>

#define CQIL_ISA isa_plain
#define CQIL_MATVEC_ROWS 4
#define CQIL_TILE_ROWS 2
#define CQIL_TILE_TOKENS 2
#define CQIL_ATTEND_SUMS 4
#include "../simd/f32x16_plain.h"
#include "kernels_inl.h"
#include "../ops/bf16_as_floats_inl.h"
#include "bf16_table.h"

namespace cqil {

constexpr Kernels kernels_plain = CQIL_ISA::make_kernels("plain");
constexpr RoundedKernels bf16_plain = CQIL_ISA::make_bf16_kernels("plain", false);

}  // namespace cqil
