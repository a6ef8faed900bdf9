#include "pack.h"

#include <cstring>

#include "../core/dtype.h"

namespace cqil::cuda {
namespace {

int64_t whole(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

// Where a block's f16 scale stands in the file, and how many bytes of it stay in the first plane; quants -1: all of it.
struct Planes {
  int64_t scale_at, quants_at, quants;
};
Planes planes_of(cqil_dtype dtype) {
  switch (dtype) {
    case CQIL_Q8_0: return {0, 2, 32};
    case CQIL_Q4_0: return {0, 2, 16};
    case CQIL_Q6_K: return {208, 0, 208};
    default: return {0, 0, -1};
  }
}

}  // namespace

PackedLayout packed_layout(cqil_dtype dtype, int64_t rows, int64_t cols) {
  PackedLayout layout = {};
  const Planes planes = planes_of(dtype);
  if (planes.quants < 0) {
    layout.row_bytes = whole(row_bytes(dtype, cols), 16);
  } else {
    const int64_t blocks = cols / dtype_info(dtype).block_weights;
    layout.row_bytes = blocks * planes.quants;
    layout.scale_row_bytes = whole(blocks * 2, 16);
  }
  layout.scales_offset = whole(rows * layout.row_bytes, 256);
  layout.bytes = layout.scales_offset + whole(rows * layout.scale_row_bytes, 256);
  return layout;
}

void pack_rows(cqil_dtype dtype, int64_t cols, const void* rows, int64_t n_rows, uint8_t* data, uint8_t* scales) {
  const uint8_t* from = static_cast<const uint8_t*>(rows);
  const Planes planes = planes_of(dtype);
  if (planes.quants < 0) {
    const int64_t bytes = row_bytes(dtype, cols), stride = whole(bytes, 16);
    for (int64_t r = 0; r < n_rows; r++) {
      std::memcpy(data + r * stride, from + r * bytes, static_cast<size_t>(bytes));
      std::memset(data + r * stride + bytes, 0, static_cast<size_t>(stride - bytes));
    }
    return;
  }
  const DtypeInfo& info = dtype_info(dtype);
  const int64_t blocks = cols / info.block_weights, stride = whole(blocks * 2, 16);
  for (int64_t r = 0; r < n_rows; r++, scales += stride) {
    std::memset(scales + blocks * 2, 0, static_cast<size_t>(stride - blocks * 2));
    for (int64_t b = 0; b < blocks; b++, from += info.block_bytes, data += planes.quants) {
      std::memcpy(data, from + planes.quants_at, static_cast<size_t>(planes.quants));
      std::memcpy(scales + b * 2, from + planes.scale_at, 2);
    }
  }
}

}  // namespace cqil::cuda
