#include "row_codec.h"

#include <cmath>
#include <cstring>

#include "dtype.h"
#include "half.h"

namespace cqil {
namespace {

uint16_t read_u16(const uint8_t* at) {
  uint16_t value;
  std::memcpy(&value, at, sizeof value);
  return value;
}

float read_f16(const uint8_t* at) { return float_from_f16(read_u16(at)); }

// Six-bit scale and minimum of sub-block j of eight, packed in 12 bytes.
void read_scale(const uint8_t* packed, int j, int& scale, int& minimum) {
  if (j < 4) {
    scale = packed[j] & 63;
    minimum = packed[j + 4] & 63;
  } else {
    scale = (packed[j + 4] & 15) | (packed[j - 4] >> 6 << 4);
    minimum = (packed[j + 4] >> 4) | (packed[j] >> 6 << 4);
  }
}

// f16 d, 32 x int8: w = d q.
void unpack_q8_0(const uint8_t* block, float* out) {
  const float d = read_f16(block);
  for (int i = 0; i < 32; i++) out[i] = d * static_cast<float>(static_cast<int8_t>(block[2 + i]));
}

// f16 d, 16 bytes whose low nibbles are weights 0 to 15 and high ones 16 to 31: w = d (q - 8).
void unpack_q4_0(const uint8_t* block, float* out) {
  const float d = read_f16(block);
  for (int i = 0; i < 16; i++) {
    out[i] = d * static_cast<float>((block[2 + i] & 15) - 8);
    out[i + 16] = d * static_cast<float>((block[2 + i] >> 4) - 8);
  }
}

// f16 d and dmin, scales and minima of eight sub-blocks of 32, for Q5_K a fifth bit of each weight in 32 bytes, then
// nibbles, those of two sub-blocks in the same 32 bytes: w = d scale q - dmin minimum.
void unpack_k(const uint8_t* block, bool five, float* out) {
  const float d = read_f16(block), dmin = read_f16(block + 2);
  const uint8_t* nibbles = block + (five ? 48 : 16);
  for (int j = 0; j < 8; j++) {
    int scale, minimum;
    read_scale(block + 4, j, scale, minimum);
    const float step = d * static_cast<float>(scale), offset = dmin * static_cast<float>(minimum);
    for (int i = 0; i < 32; i++) {
      int q = nibbles[j / 2 * 32 + i] >> (j % 2 * 4) & 15;
      if (five) q |= (block[16 + i] >> j & 1) << 4;
      out[32 * j + i] = step * static_cast<float>(q) - offset;
    }
  }
}

// Each half has 64 bytes of low nibbles and 32 of upper bit pairs for four runs of 32 weights; 16 x int8 scales; f16 d:
// w = d scale (q - 32).
void unpack_q6_k(const uint8_t* block, float* out) {
  const float d = read_f16(block + 208);
  for (int k = 0; k < 256; k++) {
    const int half = k / 128, run = k % 128 / 32, i = k % 32;
    const int low = block[64 * half + 32 * (run % 2) + i] >> (run / 2 * 4) & 15;
    const int high = block[128 + 32 * half + i] >> (2 * run) & 3;
    const float step = d * static_cast<float>(static_cast<int8_t>(block[192 + k / 16]));
    out[k] = step * static_cast<float>((low | high << 4) - 32);
  }
}

// The scale is rounded up rather than down, so that the largest weight of the block needs no clamping.
bool pack_q8_0(const float* values, uint8_t* block) {
  float largest = 0;
  for (int i = 0; i < 32; i++) {
    if (!std::isfinite(values[i])) return false;
    largest = std::fmax(largest, std::fabs(values[i]));
  }
  uint16_t scale = f16_from_float(largest / 127.0f);
  if (float_from_f16(scale) * 127.0f < largest) scale++;
  const float d = float_from_f16(scale);
  if (!std::isfinite(d)) return false;
  std::memcpy(block, &scale, sizeof scale);
  for (int i = 0; i < 32; i++)
    block[2 + i] = static_cast<uint8_t>(static_cast<int8_t>(d > 0 ? std::lround(values[i] / d) : 0));
  return true;
}

}  // namespace

void unpack_row(cqil_dtype dtype, const uint8_t* row, int64_t cols, float* out) {
  const DtypeInfo& info = dtype_info(dtype);
  if (dtype == CQIL_F32) {
    std::memcpy(out, row, static_cast<size_t>(cols) * sizeof(float));
    return;
  }
  for (int64_t i = 0; i < cols; i += info.block_weights, row += info.block_bytes) {
    switch (dtype) {
      case CQIL_F16: out[i] = read_f16(row); break;
      case CQIL_BF16: out[i] = float_from_bf16(read_u16(row)); break;
      case CQIL_Q8_0: unpack_q8_0(row, out + i); break;
      case CQIL_Q4_0: unpack_q4_0(row, out + i); break;
      case CQIL_Q4_K: unpack_k(row, false, out + i); break;
      case CQIL_Q5_K: unpack_k(row, true, out + i); break;
      case CQIL_Q6_K: unpack_q6_k(row, out + i); break;
      default: break;
    }
  }
}

bool pack_row(cqil_dtype dtype, const float* values, int64_t cols, uint8_t* row) {
  if (dtype == CQIL_Q8_0) {
    bool finite = true;
    for (int64_t i = 0; i < cols; i += 32, row += 34) finite = pack_q8_0(values + i, row) && finite;
    return finite;
  }
  bool finite = true;
  for (int64_t i = 0; i < cols; i++) {
    finite = finite && std::isfinite(values[i]);
    if (dtype == CQIL_F32) {
      std::memcpy(row + 4 * i, values + i, sizeof(float));
      continue;
    }
    const uint16_t half = dtype == CQIL_F16 ? f16_from_float(values[i]) : bf16_from_float(values[i]);
    finite = finite && (half & 0x7fff) < (dtype == CQIL_F16 ? 0x7c00 : 0x7f80);
    std::memcpy(row + 2 * i, &half, sizeof half);
  }
  return finite;
}

}  // namespace cqil
