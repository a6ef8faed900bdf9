// float32 of every f16, for single halves: a load from this table costs the vector units nothing, and packed formats
// have one scale per 32 weights.
#pragma once

namespace cqil {

extern const float* const half_table;  // [65536]

}  // namespace cqil
