// From a tensor of the file to the form the kernels read (launch.h, Matrix): plain C++ on the host, to be called slice
// by slice into a staging buffer.
//   F32, F16, BF16   rows padded with zeros to 16 bytes
//   Q8_0, Q4_0       the blocks' quants; their f16 scales in the second plane, whose rows are padded with zeros to
//                    16 bytes
//   Q4_K, Q5_K       as in the file: blocks of 144 and 176 bytes
//   Q6_K             blocks without their last two bytes, 208 bytes each; the f16 d in the second plane
#pragma once
#include <stdint.h>

#include "../backend/backend.h"

namespace cqil::cuda {

struct PackedLayout {
  int64_t row_bytes;        // of the first plane, a multiple of 16
  int64_t scale_row_bytes;  // of the second, a multiple of 16, 0 where there is none
  int64_t scales_offset;    // of the second plane in one allocation that holds both, a multiple of 256
  int64_t bytes;            // of that allocation
};
PackedLayout packed_layout(cqil_dtype dtype, int64_t rows, int64_t cols);

// Packs n_rows rows: data [n_rows, row_bytes], scales [n_rows, scale_row_bytes] (unused where that is 0).
void pack_rows(cqil_dtype dtype, int64_t cols, const void* rows, int64_t n_rows, uint8_t* data, uint8_t* scales);

}  // namespace cqil::cuda
