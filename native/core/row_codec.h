// One row of weights to float32 and back, for what happens once at load. Kernels unpack by themselves.
#pragma once
#include <cstdint>

#include "../backend/backend.h"

namespace cqil {

// out[cols] = the row as float32; exact except for Q4_K and Q5_K, whose minimum is taken off with one rounding.
void unpack_row(cqil_dtype dtype, const uint8_t* row, int64_t cols, float* out);

// Rounds values[cols] to the row, to nearest: F32, F16, BF16 or Q8_0. False when a value, or what it rounds to, is not
// finite.
bool pack_row(cqil_dtype dtype, const float* values, int64_t cols, uint8_t* row);

}  // namespace cqil
