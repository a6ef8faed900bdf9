// How keys and values are kept in the cache. A head's row at one position is head_stride values (head_dim in whole
// blocks of 32, the rest zero) in cache_row_bytes() bytes: F32 and F16 plainly; Q8_0 as head_stride int8 and then one
// f16 d for each 32 of them, value d q, with d = max|x| / 127 and q = x / d to the nearest integer. What is not finite,
// or not in the format, is kept as NaN, or its block's d is: an infinite key could hide, as softmax gives a score of
// minus infinity no weight.
#pragma once
#include "block.cuh"

namespace cqil::cuda {

// Where the keys and values of a token's text are, and the token's position among them.
struct Place {
  uint8_t *keys, *values;
  int context, position;
};

template <class T>
__device__ __forceinline__ T* load_pointer(T* const* at) {
  return reinterpret_cast<T*>(load_fresh(reinterpret_cast<const uint64_t*>(at)));
}

// Nothing in a forward writes what this reads, so it need not wait for the launch before.
__device__ __forceinline__ Place place_of(const DeviceWorkspace& s, int token) {
  const DeviceToken* of = s.inputs->tokens + token;
  return {load_pointer(&of->cache.keys), load_pointer(&of->cache.values), load_fresh(&of->cache.context),
          load_fresh(&of->position)};
}

// The token of a row of logits.
__device__ __forceinline__ int token_of_head(const Step& step, int head) {
  return step.n_tokens == 1 ? 0 : load_fresh(step.workspace.inputs->heads + head);
}

// Bytes from a cache's first key or value to the one of this layer and head at this position.
__device__ __forceinline__ int64_t cache_offset(const DeviceModel& m, const Place& place, int layer, int head,
                                                int position, int row_bytes) {
  return ((static_cast<int64_t>(layer) * m.n_kv_heads + head) * place.context + position) * row_bytes;
}

// Infinite becomes NaN.
__device__ __forceinline__ uint16_t finite_half(uint16_t half) {
  return (half & 0x7c00u) == 0x7c00u ? static_cast<uint16_t>(half | 0x200u) : half;
}

// One value of a plain format.
__device__ __forceinline__ void store_value(uint8_t* row, int kv_dtype, int i, float value) {
  if (kv_dtype == CQIL_F32) reinterpret_cast<float*>(row)[i] = fmaf(value, 0.0f, value);
  else reinterpret_cast<uint16_t*>(row)[i] = finite_half(half_from_float(value));
}

// A row of head_stride values, by one warp.
__device__ __forceinline__ void store_row(uint8_t* row, int kv_dtype, const float* values, int head_stride) {
  for (int i = lane_id(); i < head_stride; i += kWarpSize) {
    const float value = values[i];
    if (kv_dtype != CQIL_Q8_0) {
      store_value(row, kv_dtype, i, value);
      continue;
    }
    const float d = warp_max(fabsf(value)) / 127.0f;
    const float q = fminf(fmaxf(rintf(value / (d > 0 ? d : 1.0f)), -127.0f), 127.0f);
    reinterpret_cast<int8_t*>(row)[i] = static_cast<int8_t>(q);
    const float none = warp_sum(value * 0.0f);  // 0, or NaN where a value is not finite: the maximum may have lost it
    if (lane_id() == 0) reinterpret_cast<uint16_t*>(row + head_stride)[i / 32] = finite_half(half_from_float(d + none));
  }
}

// Eight values from index i on, a multiple of 8.
template <int D>
struct KvRun;

template <>
struct KvRun<CQIL_F32> {
  float4 a, b;
  __device__ __forceinline__ void load(const uint8_t* row, int i, int) {
    a = load_fresh(reinterpret_cast<const float4*>(row) + i / 4);
    b = load_fresh(reinterpret_cast<const float4*>(row) + i / 4 + 1);
  }
  __device__ __forceinline__ void unpack(float (&out)[8]) const {
    out[0] = a.x, out[1] = a.y, out[2] = a.z, out[3] = a.w;
    out[4] = b.x, out[5] = b.y, out[6] = b.z, out[7] = b.w;
  }
};

template <>
struct KvRun<CQIL_F16> {
  uint4 v;
  __device__ __forceinline__ void load(const uint8_t* row, int i, int) {
    v = load_fresh(reinterpret_cast<const uint4*>(row) + i / 8);
  }
  __device__ __forceinline__ void unpack(float (&out)[8]) const {
    const uint32_t w[4] = {v.x, v.y, v.z, v.w};
    CQIL_UNROLL for (int i = 0; i < 4; i++) {
      out[2 * i] = float_from_half(static_cast<uint16_t>(w[i] & 0xffffu));
      out[2 * i + 1] = float_from_half(static_cast<uint16_t>(w[i] >> 16));
    }
  }
};

template <>
struct KvRun<CQIL_Q8_0> {
  uint2 v;
  uint16_t d;
  __device__ __forceinline__ void load(const uint8_t* row, int i, int head_stride) {
    v = load_fresh(reinterpret_cast<const uint2*>(row) + i / 8);
    d = load_fresh(reinterpret_cast<const uint16_t*>(row + head_stride) + i / 32);
  }
  __device__ __forceinline__ void unpack(float (&out)[8]) const {
    const float scale = float_from_half(d);
    const uint32_t w[2] = {v.x, v.y};
    CQIL_UNROLL for (int i = 0; i < 8; i++) {
      out[i] = scale * static_cast<float>(static_cast<int8_t>(w[i / 4] >> (8 * (i % 4)) & 0xffu));
    }
  }
};

}  // namespace cqil::cuda
