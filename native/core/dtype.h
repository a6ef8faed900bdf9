// Element formats: names as they cross the boundary, and how many bytes a row takes.
#pragma once
#include <cstdint>
#include <string>

#include "../backend/backend.h"

namespace cqil {

struct DtypeInfo {
  const char* name;
  int32_t block_weights;
  int32_t block_bytes;
};

inline const DtypeInfo& dtype_info(cqil_dtype dtype) {
  static const DtypeInfo table[CQIL_DTYPE_COUNT] = {
      {"F32", 1, 4},    {"F16", 1, 2},      {"BF16", 1, 2},     {"Q8_0", 32, 34},
      {"Q4_0", 32, 18}, {"Q4_K", 256, 144}, {"Q5_K", 256, 176}, {"Q6_K", 256, 210},
  };
  return table[dtype];
}

// CQIL_DTYPE_COUNT when there is no such format.
inline cqil_dtype dtype_from_name(const std::string& name) {
  int i = 0;
  while (i < CQIL_DTYPE_COUNT && name != dtype_info(static_cast<cqil_dtype>(i)).name) i++;
  return static_cast<cqil_dtype>(i);
}

// Bytes of one row of cols weights; cols is a multiple of block_weights.
inline int64_t row_bytes(cqil_dtype dtype, int64_t cols) {
  const DtypeInfo& info = dtype_info(dtype);
  return cols / info.block_weights * info.block_bytes;
}

// Bytes of the keys or values of one head at one position in a KV cache.
inline int64_t kv_row_bytes(cqil_dtype dtype, int64_t head_dim) {
  const int64_t block = dtype_info(dtype).block_weights;
  return row_bytes(dtype, (head_dim + block - 1) / block * block);
}

}  // namespace cqil
