// Vectors staged in shared memory for the warps of a block, n floats, n a multiple of 32: as floats for weights that
// are floats, and in fixed point for quantized ones, whose products are then sums of integers.
#pragma once
#include "intrinsics.cuh"

namespace cqil::cuda {

constexpr int kSquaresUnit = 128;

// float32. Sixteen-byte quads are permuted within runs of eight, so that the strides at which the weight formats read
// them spread over all banks; the permutation repeats after 64 quads.
struct StagedFloats {
  static constexpr int kPeriod = 64;  // quads
  int first;                          // quads from the start of shared memory, a multiple of 8

  __device__ __forceinline__ static StagedFloats beginning_at(int floats) { return {floats / 4}; }
  __device__ __forceinline__ float4* at(int i) const {
    return reinterpret_cast<float4*>(shared_floats()) + first + (i ^ (i >> 3 & 7));
  }
  __device__ __forceinline__ float4 quad(int i) const { return *at(i); }
  // The vector from quad i on, a multiple of kPeriod.
  __device__ __forceinline__ StagedFloats from(int i) const { return {first + i}; }
  __device__ __forceinline__ void* end(int n) const {
    return reinterpret_cast<float4*>(shared_floats()) + first + n / 4;
  }
};

// Blocks of 32 values v scale with integers v = low + 2^8 middle + 2^16 high: bytes of low, of middle and of high, each
// signed, so that a product with four weights is one instruction for each of the three. |v| <= 2^21 and scale is a
// power of two, the least that allows it, though no less than 2^-125: so v scale is within 2^-21 of the block's largest
// value of what was staged, or within 2^-126; what is not finite stays so by its scale. A block takes 112 bytes: at
// that stride the 16-byte loads of neighbouring threads from neighbouring blocks meet in no bank.
struct StagedFixed {
  static constexpr int kPeriod = 8;
  static constexpr int kBlockBytes = 112, kPlaneBytes = 32;
  struct Scale {
    float scale;
    int32_t sums[2];  // of v, of the first and the last 16
    int32_t unused;
    __device__ __forceinline__ int32_t sum(int half) const { return half ? sums[1] : sums[0]; }
  };
  int first;  // bytes from the start of shared memory, a multiple of 16

  __device__ __forceinline__ static StagedFixed beginning_at(int floats) { return {4 * floats}; }
  __device__ __forceinline__ uint8_t* block(int i) const {
    return reinterpret_cast<uint8_t*>(shared_floats()) + first + i * kBlockBytes;
  }
  // Sixteen bytes of a plane of a block's first or last half.
  __device__ __forceinline__ static uint4 plane(const uint8_t* block, int plane, int half) {
    return *reinterpret_cast<const uint4*>(block + plane * kPlaneBytes + 16 * half);
  }
  __device__ __forceinline__ static Scale& scale(uint8_t* block) {
    return *reinterpret_cast<Scale*>(block + 3 * kPlaneBytes);
  }
  __device__ __forceinline__ static Scale scale(const uint8_t* block) {
    return *reinterpret_cast<const Scale*>(block + 3 * kPlaneBytes);
  }

  // As floats, for weights that are floats in a model that has both.
  __device__ __forceinline__ float4 quad(int i) const {
    const uint8_t* at = block(i / 8);
    const auto* planes = reinterpret_cast<const uint32_t*>(at) + i % 8;
    const float by = scale(at).scale;
    float values[4];
    CQIL_UNROLL for (int k = 0; k < 4; k++) {
      auto digit = [&](int plane) {
        return static_cast<int32_t>(static_cast<int8_t>(planes[plane * (kPlaneBytes / 4)] >> (8 * k) & 0xffu));
      };
      values[k] = by * static_cast<float>(digit(0) + 256 * digit(1) + 65536 * digit(2));
    }
    return make_float4(values[0], values[1], values[2], values[3]);
  }
  __device__ __forceinline__ StagedFixed from(int i) const { return {first + i / 8 * kBlockBytes}; }
  __device__ __forceinline__ void* end(int n) const { return block(n / 32); }
};

// The scale of a block, and what takes a value to its v. largest: the bits of the largest magnitude, of which what is
// not a number has more than any number.
struct FixedScale {
  float scale, inverse;
};
__device__ __forceinline__ FixedScale fixed_scale(uint32_t largest) {
  // It is less than 2^(exponent - 126).
  const int exponent = static_cast<int>(largest >> 23), normal = max(exponent, 22);
  const float scale = float_from_bits(static_cast<uint32_t>(normal - 20) << 23);
  return {exponent == 255 ? NAN : scale, float_from_bits(static_cast<uint32_t>(274 - normal) << 23)};
}

// A quad of a block to its place, by one thread; gives the sum of its v.
__device__ __forceinline__ int32_t store_fixed(uint8_t* block, int quad, const float4& x, float inverse) {
  // The float 1.5 * 2^23 + v has v in its low bits; digits are taken where adding half a digit has rounded to the
  // nearest.
  constexpr float kMagic = 12582912.0f;
  constexpr uint32_t kMagicBits = 0x4b400000u;
  const uint32_t v[4] = {bits_from_float(fmaf(x.x, inverse, kMagic)) - kMagicBits,
                         bits_from_float(fmaf(x.y, inverse, kMagic)) - kMagicBits,
                         bits_from_float(fmaf(x.z, inverse, kMagic)) - kMagicBits,
                         bits_from_float(fmaf(x.w, inverse, kMagic)) - kMagicBits};
  auto* planes = reinterpret_cast<uint32_t*>(block) + quad;
  CQIL_UNROLL for (int plane = 0; plane < 3; plane++) {
    constexpr uint32_t kHalves[3] = {0, 0x80u, 0x8080u};
    const uint32_t pair = static_cast<uint32_t>(plane) | static_cast<uint32_t>(plane + 4) << 4;
    const uint32_t low = select_bytes(v[0] + kHalves[plane], v[1] + kHalves[plane], pair);
    const uint32_t high = select_bytes(v[2] + kHalves[plane], v[3] + kHalves[plane], pair);
    planes[plane * (StagedFixed::kPlaneBytes / 4)] = select_bytes(low, high, 0x5410u);
  }
  return static_cast<int32_t>(v[0] + v[1] + v[2] + v[3]);
}

}  // namespace cqil::cuda
