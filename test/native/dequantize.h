// The weight formats once more, in float64 and as plainly as their definition reads: the truth the kernels are held to.
#pragma once
#include <cstdint>
#include <cstring>
#include <vector>

#include "core/dtype.h"
#include "core/half.h"

namespace check {

inline uint16_t u16(const uint8_t* p) { return static_cast<uint16_t>(p[0] | p[1] << 8); }
inline double f16(const uint8_t* p) { return cqil::float_from_f16(u16(p)); }

inline void k_scale(const uint8_t* packed, int j, int& scale, int& min) {
  if (j < 4) {
    scale = packed[j] & 63;
    min = packed[j + 4] & 63;
  } else {
    scale = (packed[j + 4] & 15) | (packed[j - 4] >> 6) << 4;
    min = (packed[j + 4] >> 4) | (packed[j] >> 6) << 4;
  }
}

inline std::vector<double> dequantize(const uint8_t* p, cqil_dtype dtype, int64_t count) {
  std::vector<double> out(static_cast<size_t>(count));
  const cqil::DtypeInfo& info = cqil::dtype_info(dtype);
  for (int64_t i = 0; i < count; i++) {
    const uint8_t* b = p + i / info.block_weights * info.block_bytes;
    const int k = static_cast<int>(i % info.block_weights);
    double& w = out[static_cast<size_t>(i)];
    int scale = 0, min = 0;
    switch (dtype) {
      case CQIL_F32: {
        float value;
        std::memcpy(&value, b, 4);
        w = value;
        break;
      }
      case CQIL_F16: w = f16(b); break;
      case CQIL_BF16: w = cqil::float_from_bf16(u16(b)); break;
      case CQIL_Q8_0: w = f16(b) * static_cast<int8_t>(b[2 + k]); break;
      case CQIL_Q4_0: w = f16(b) * ((k < 16 ? b[2 + k] & 15 : b[2 + k - 16] >> 4) - 8); break;
      case CQIL_Q4_K: {
        k_scale(b + 4, k / 32, scale, min);
        const uint8_t q = b[16 + k / 64 * 32 + k % 32];
        w = f16(b) * scale * (k % 64 < 32 ? q & 15 : q >> 4) - f16(b + 2) * min;
        break;
      }
      case CQIL_Q5_K: {
        k_scale(b + 4, k / 32, scale, min);
        const uint8_t q = b[48 + k / 64 * 32 + k % 32];
        const int fifth = b[16 + k % 32] >> (k / 32) & 1;
        w = f16(b) * scale * ((k % 64 < 32 ? q & 15 : q >> 4) + 16 * fifth) - f16(b + 2) * min;
        break;
      }
      case CQIL_Q6_K: {
        const int half = k / 128, quarter = k % 128 / 32, l = k % 32;
        const uint8_t low = b[64 * half + 32 * (quarter % 2) + l];
        const int q = (quarter < 2 ? low & 15 : low >> 4) | (b[128 + 32 * half + l] >> (2 * quarter) & 3) << 4;
        w = f16(b + 208) * static_cast<int8_t>(b[192 + k / 16]) * (q - 32);
        break;
      }
      default: break;
    }
  }
  return out;
}

}  // namespace check
