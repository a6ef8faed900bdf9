// Random weights for measuring speed and arithmetic without a download. Never a model anyone should read.
#pragma once
#include <cstdint>

#include "../backend/backend.h"

namespace cqil {

// Fills a tensor's storage so that its values are about uniform with standard deviation 1/sqrt(cols) (matrices) or
// close to 1 (vectors). Deterministic in seed.
void fill_random(void* data, cqil_dtype dtype, int64_t rows, int64_t cols, uint64_t seed);

}  // namespace cqil
