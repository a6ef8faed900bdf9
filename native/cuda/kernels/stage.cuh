// What the phases stage in shared memory before they multiply: plain vectors, and normalised ones.
// RMSNorm: y = x / sqrt(mean(x^2) + eps) * weight (Zhang and Sennrich 2019, arXiv 1910.07467).
#pragma once
#include "gemv.cuh"

namespace cqil::cuda {

__device__ __forceinline__ float4 quad_of(const float* from, int i) { return load_fresh(reinterpret_cast<const float4*>(from) + i); }
__device__ __forceinline__ float4 add(const float4& a, const float4& b) { return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w); }
__device__ __forceinline__ float square_sum(const float4& v) { return (v.x * v.x + v.y * v.y) + (v.z * v.z + v.w * v.w); }

__device__ __forceinline__ int padded(int n) { return (n + 31) / 32 * 32; }

__device__ __forceinline__ float* lane_row(const DeviceSession& s, float* buffer, int stride, int lane, int token) {
  return buffer + (static_cast<int64_t>(lane) * s.size.batch + token) * stride;
}

// x, or for the MLP x + a_j + b_j, quad i of one lane and token.
__device__ __forceinline__ float4 layer_input(const DeviceSession& s, int lane, int token, bool mlp, int i) {
  float4 h = quad_of(s.x + static_cast<int64_t>(token) * s.dim_stride, i);
  if (!mlp) return h;
  const float* attention_out = lane_row(s, s.attention_out, s.dim_stride, lane, token);
  h = add(h, quad_of(attention_out, i));
  CQIL_NO_UNROLL for (int left = min(s.size.bypass, lane); left > 0; left--) {
    attention_out -= static_cast<int64_t>(s.size.batch) * s.dim_stride;
    h = add(h, quad_of(attention_out, i));
  }
  return h;
}

// weight[4 i …] with zeros from n on: norm weights are not padded.
__device__ __forceinline__ float4 norm_weight(const float* weight, int i, int n) {
  if (4 * i + 4 <= n) return *(reinterpret_cast<const float4*>(weight) + i);
  return make_float4(4 * i < n ? weight[4 * i] : 0.0f, 4 * i + 1 < n ? weight[4 * i + 1] : 0.0f, 4 * i + 2 < n ? weight[4 * i + 2] : 0.0f, 0.0f);
}
// The l-th of several vectors of n floats that are staged one behind the other; n is a multiple of 32.
__device__ __forceinline__ SharedVector staged_at(int l, int n) { return {(kReduceFloats + l * staged_floats(n)) / 4, n}; }

struct Weighted {
  float4 value, weight;
};
__device__ __forceinline__ float4 product(const Weighted& v) {
  return make_float4(v.value.x * v.weight.x, v.value.y * v.weight.y, v.value.z * v.weight.z, v.value.w * v.weight.w);
}

// Stages `vectors` vectors of n floats, by all threads of the block: of each quad value times weight as load(vector, quad) gives
// them, the sums of each 16 of these, and with kSquares of each 128 values the sum of their squares, which the norm needs: its
// factor comes to the product's result, not to the vector, which so needs no second look. Four units of a warp are on their way at
// a time, as the vectors come from L2 one dependent load after the other otherwise.
template <bool kSquares, class Load>
__device__ __forceinline__ void stage_vectors(int vectors, int n, Load load) {
  constexpr int kAtOnce = 2;
  const int quads = n / 4, units = (quads + kWarpSize - 1) / kWarpSize, all = vectors * units;
  for (int first = warp_id(); first < all; first += kAtOnce * kWarps) {
    Weighted v[kAtOnce];
    CQIL_UNROLL for (int k = 0; k < kAtOnce; k++) {
      const int unit = min(first + k * kWarps, all - 1), quad = unit % units * kWarpSize + lane_id();
      v[k] = load(unit / units, min(quad, quads - 1));
    }
    CQIL_UNROLL for (int k = 0; k < kAtOnce; k++) {
      const int unit = first + k * kWarps, in_vector = unit % units, quad = in_vector * kWarpSize + lane_id();
      if (unit >= all) break;
      const SharedVector to = staged_at(unit / units, n);
      const bool there = quad < quads;
      if (kSquares) {
        const float squares = warp_sum(there ? square_sum(v[k].value) : 0.0f);
        if (lane_id() == 0) *to.squares_at(in_vector) = squares;
      }
      const float4 staged = product(v[k]);
      float sum = (staged.x + staged.y) + (staged.z + staged.w);
      sum += shuffle_xor(sum, 1);
      sum += shuffle_xor(sum, 2);
      if (there) *to.at(quad) = staged;
      if (there && lane_id() % 4 == 0) *to.sum16_at(quad / 4) = sum;
    }
  }
}
// Plain vectors: n floats each at from(vector), padded with zeros to 32.
template <class From>
__device__ __forceinline__ void stage_plain(int vectors, int n, From from) {
  stage_vectors<false>(vectors, padded(n), [&](int l, int i) { return Weighted{quad_of(from(l), i), make_float4(1, 1, 1, 1)}; });
}

// 1 / sqrt(mean(x^2) + eps) of the dim floats that x was staged from.
__device__ __forceinline__ float norm_factor(const DeviceModel& m, const SharedVector& x) {
  float sum = 0;
  for (int unit = lane_id(); unit * kSquaresUnit < x.n; unit += kWarpSize) sum += *x.squares_at(unit);
  return inverse_root(divide(warp_sum(sum), static_cast<float>(m.dim)) + m.norm_eps);
}

// What the norms of `vectors` vectors are made of; `weight(l)` has dim floats.
template <class Input, class Weight>
__device__ __forceinline__ void stage_norms(const DeviceModel& m, const DeviceSession& s, int vectors, Input input, Weight weight) {
  stage_vectors<true>(vectors, s.dim_stride, [&](int l, int i) { return Weighted{input(l, i), norm_weight(weight(l), i, m.dim)}; });
}

// Of lanes first ... of a stage at layer first_layer, from token 0's input of their attention or MLP.
__device__ __forceinline__ void stage_lane_norms(const DeviceModel& m, const DeviceSession& s, int first_layer, int first, int n, bool mlp) {
  stage_norms(
      m, s, n, [&](int l, int i) { return layer_input(s, first + l, 0, mlp, i); },
      [&](int l) {
        const DeviceLayer& layer = m.layers[first_layer + first + l];
        return mlp ? layer.mlp_norm : layer.attention_norm;
      });
}

// Asks L2 for `bytes` bytes from `at` on, by all threads of the grid that reach it.
__device__ __forceinline__ void prefetch(const void* at, int64_t bytes, int thread, int threads) {
  for (int64_t i = int64_t{128} * thread; i < bytes; i += int64_t{128} * threads) prefetch_to_l2(static_cast<const uint8_t*>(at) + i);
}
// What stage_lane_norms will read that no phase writes, by one block.
__device__ __forceinline__ void prefetch_norms(const DeviceModel& m, const LaneRange& lanes, bool mlp) {
  for (int lane = warp_id(); lane < lanes.n_lanes; lane += kWarps) {
    const DeviceLayer& layer = m.layers[lanes.first_layer + lanes.first_lane + lane];
    prefetch(mlp ? layer.mlp_norm : layer.attention_norm, int64_t{4} * m.dim, lane_id(), kWarpSize);
  }
}

// Runs work(lane, item, stream, x) for `items` items of each lane of a range, an item to a warp; stream is at its first run, and
// x is the lane's vector of n floats, which stage(first lane, lanes) has staged. runs_of(lane, item, i) is run i of runs_per_item.
// As many lanes as fit are staged at a time. wait() returns when the phase before has ended.
template <bool kPlain, class RunsOf, class Wait, class Stage, class Work>
__device__ __forceinline__ void for_lanes(const Step& step, const LaneRange& lanes, int n, int items, int runs_per_item, RunsOf runs_of, Wait wait,
                                          Stage stage, Work work) {
  const int all = lanes.n_lanes * items, mine = grid_warp() < all ? (all - grid_warp() + grid_warps() - 1) / grid_warps() : 0;
  auto run_at = [&](int k) {
    const int i = grid_warp() + k / runs_per_item * grid_warps();
    return runs_of(lanes.first_lane + i / items, i % items, k % runs_per_item);
  };
  RowStream<kPlain, decltype(run_at)> stream(step, run_at, mine * runs_per_item);
  stream.begin();
  wait();
  const int at_once = step.stage_floats / staged_floats(n);
  int i = grid_warp();
  for (int first = 0; first < lanes.n_lanes; first += at_once) {
    const int count = min(lanes.n_lanes - first, at_once);
    if (first > 0) sync_block();
    stage(lanes.first_lane + first, count);
    sync_block();
    for (; i < (first + count) * items; i += grid_warps()) work(lanes.first_lane + i / items, i % items, stream, staged_at(i / items - first, n));
  }
}

}  // namespace cqil::cuda
