// What the phases stage in shared memory before they multiply: plain vectors, and normalised ones.
// RMSNorm: y = x / sqrt(mean(x^2) + eps) * weight (Zhang and Sennrich 2019, arXiv 1910.07467).
#pragma once
#include "block.cuh"
#include "launch.h"
#include "shared_vector.cuh"

namespace cqil::cuda {

__device__ __forceinline__ float4 quad_of(const float* from, int i) { return load_fresh(reinterpret_cast<const float4*>(from) + i); }
__device__ __forceinline__ float4 add(const float4& a, const float4& b) { return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w); }
__device__ __forceinline__ float square_sum(const float4& v) { return (v.x * v.x + v.y * v.y) + (v.z * v.z + v.w * v.w); }

__device__ __forceinline__ int padded(int n) { return (n + 31) / 32 * 32; }

__device__ __forceinline__ float* lane_row(const DeviceSession& s, float* buffer, int stride, int lane, int token) {
  return buffer + (static_cast<int64_t>(lane) * s.size.batch + token) * stride;
}

// out = the n floats at `from`, which are padded to 32; all threads of the block.
__device__ __forceinline__ void stage_plain(const SharedVector& out, const float* from, int n) {
  for (int i = static_cast<int>(threadIdx.x); i < padded(n) / 4; i += kThreads) out.set(i, quad_of(from, i));
}

// x, or for the MLP x + a_j + b_j, quad i of one lane and token.
__device__ __forceinline__ float4 layer_input(const DeviceSession& s, int lane, int token, bool mlp, int i) {
  float4 h = quad_of(s.x + static_cast<int64_t>(token) * s.dim_stride, i);
  if (!mlp) return h;
  h = add(h, quad_of(lane_row(s, s.attention_out, s.dim_stride, lane, token), i));
  for (int k = 1; k <= s.size.bypass && k <= lane; k++)
    h = add(h, quad_of(lane_row(s, s.attention_out, s.dim_stride, lane - k, token), i));
  return h;
}

// weight[4 i …] with zeros from n on: norm weights are not padded.
__device__ __forceinline__ float4 norm_weight(const float* weight, int i, int n) {
  if (4 * i + 4 <= n) return *(reinterpret_cast<const float4*>(weight) + i);
  return make_float4(4 * i < n ? weight[4 * i] : 0.0f, 4 * i + 1 < n ? weight[4 * i + 1] : 0.0f, 4 * i + 2 < n ? weight[4 * i + 2] : 0.0f, 0.0f);
}
__device__ __forceinline__ float4 scaled(const float4& v, float scale, const float4& w) {
  return make_float4(v.x * scale * w.x, v.y * scale * w.y, v.z * scale * w.z, v.w * scale * w.w);
}

// out = the norm of token 0's x.
__device__ __forceinline__ void stage_norm(const SharedVector& out, const DeviceModel& m, const float* x, const float* weight) {
  const int quads = padded(m.dim) / 4;
  float squares = 0;
  for (int i = static_cast<int>(threadIdx.x); i < quads; i += kThreads) {
    const float4 v = quad_of(x, i);
    squares += square_sum(v);
    out.set(i, v);
  }
  const float scale = inverse_root(block_sum(squares, 0) / static_cast<float>(m.dim) + m.norm_eps);
  for (int i = static_cast<int>(threadIdx.x); i < quads; i += kThreads) out.set(i, scaled(out.quad(i), scale, norm_weight(weight, i, m.dim)));
}

// For lanes first … first + n - 1 of a stage at layer first_layer, the norms of their inputs of token 0, from `out` on. The
// input of all attention blocks is x, whose statistic is then computed once.
__device__ __forceinline__ void stage_lane_norms(const SharedVector& out, const DeviceModel& m, const DeviceSession& s, int first_layer,
                                                 int first, int n, bool mlp) {
  const int quads = s.dim_stride / 4;
  float scale = 0;
  for (int l = 0; l < n; l++) {
    const SharedVector to{out.first + l * quads};
    if (mlp || l == 0) {
      float squares = 0;
      for (int i = static_cast<int>(threadIdx.x); i < quads; i += kThreads) {
        const float4 h = layer_input(s, first + l, 0, mlp, i);
        squares += square_sum(h);
        to.set(i, h);
      }
      scale = inverse_root(block_sum(squares, l) / static_cast<float>(m.dim) + m.norm_eps);
    }
    const DeviceLayer& layer = m.layers[first_layer + first + l];
    const float* weight = mlp ? layer.mlp_norm : layer.attention_norm;
    for (int i = static_cast<int>(threadIdx.x); i < quads; i += kThreads) {
      const float4 h = mlp ? to.quad(i) : quad_of(s.x, i);
      to.set(i, scaled(h, scale, norm_weight(weight, i, m.dim)));
    }
  }
}

// Runs work(lane, item, x) for `items` items of each lane of a range, an item to a warp; x is the lane's vector of `stride`
// floats, which stage(first lane, lanes, x) has staged. As many lanes as fit are staged at a time.
template <class Stage, class Work>
__device__ __forceinline__ void for_lanes(const LaneRange& lanes, int stride, int items, Stage stage, Work work) {
  const int at_once = kStageFloats / stride, end = lanes.first_lane + lanes.n_lanes;
  for (int first = lanes.first_lane; first < end; first += at_once) {
    const int n = end - first < at_once ? end - first : at_once;
    if (first != lanes.first_lane) sync_block();
    stage(first, n, SharedVector{0});
    sync_block();
    for (int i = grid_warp(); i < n * items; i += grid_warps()) work(first + i / items, i % items, SharedVector{i / items * (stride / 4)});
  }
}

}  // namespace cqil::cuda
