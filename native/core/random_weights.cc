#include "random_weights.h"

#include <cmath>
#include <cstring>

#include "dtype.h"
#include "half.h"

namespace cqil {
namespace {

// splitmix64: Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014.
struct SplitMix {
  uint64_t state;
  uint64_t next() {
    uint64_t z = (state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  // In [-1, 1).
  float uniform() { return static_cast<float>(static_cast<int32_t>(next() >> 32)) * 4.656612873e-10f; }
  void fill(uint8_t* data, size_t bytes) {
    for (size_t i = 0; i < bytes; i += 8) {
      const uint64_t bits = next();
      std::memcpy(data + i, &bits, bytes - i < 8 ? bytes - i : 8);
    }
  }
};

void store_f16(uint8_t* at, float value) {
  const uint16_t half = f16_from_float(value);
  std::memcpy(at, &half, sizeof half);
}

// average is the standard deviation wanted of one weight. Blocks differ in scale by up to half of it, as a model's do.
void fill_block(uint8_t* block, cqil_dtype dtype, float average, SplitMix& random) {
  const float sigma = average * (1.0f + 0.5f * random.uniform());
  switch (dtype) {
    case CQIL_Q8_0:  // d, 32 x int8: uniform int8 has deviation 73.9
      random.fill(block + 2, 32);
      store_f16(block, sigma / 73.9f);
      break;
    case CQIL_Q4_0:  // d, 16 x two nibbles less 8: deviation 4.61
      random.fill(block + 2, 16);
      store_f16(block, sigma / 4.61f);
      break;
    case CQIL_Q4_K:  // d, dmin, 12 bytes of 6-bit scales and minima, 128 bytes of nibbles
    case CQIL_Q5_K: {
      const size_t payload = dtype == CQIL_Q4_K ? 140 : 172;
      const float levels = dtype == CQIL_Q4_K ? 15.0f : 31.0f;
      random.fill(block + 4, payload);
      // Scales average 31.5 and minima too: d * 31.5 * levels / 2 is taken off by dmin * 31.5.
      const float d = sigma / (37.0f * levels * 0.4f);
      store_f16(block, d);
      store_f16(block + 2, d * levels * 0.5f);
      break;
    }
    case CQIL_Q6_K:  // 128 + 64 bytes of 6-bit weights less 32, 16 x int8 scales, d: deviation 18.5 x 73.9
      random.fill(block, 208);
      store_f16(block + 208, sigma / (18.5f * 73.9f));
      break;
    default: break;
  }
}

}  // namespace

void fill_random(void* data, cqil_dtype dtype, int64_t rows, int64_t cols, uint64_t seed) {
  SplitMix random{seed};
  uint8_t* at = static_cast<uint8_t*>(data);
  const bool vector = rows == 1;
  const float sigma = vector ? 0.05f : 1.0f / std::sqrt(static_cast<float>(cols));
  const float mean = vector ? 1.0f : 0.0f;
  const float range = sigma * 1.7320508f;
  const int64_t count = rows * cols;
  switch (dtype) {
    case CQIL_F32:
      for (int64_t i = 0; i < count; i++) {
        const float value = mean + range * random.uniform();
        std::memcpy(at + i * 4, &value, 4);
      }
      return;
    case CQIL_F16:
    case CQIL_BF16:
      for (int64_t i = 0; i < count; i++) {
        const float value = mean + range * random.uniform();
        const uint16_t half = dtype == CQIL_F16 ? f16_from_float(value) : bf16_from_float(value);
        std::memcpy(at + i * 2, &half, 2);
      }
      return;
    default: {
      const DtypeInfo& info = dtype_info(dtype);
      for (int64_t i = 0; i < count / info.block_weights; i++)
        fill_block(at + i * info.block_bytes, dtype, sigma, random);
    }
  }
}

}  // namespace cqil
