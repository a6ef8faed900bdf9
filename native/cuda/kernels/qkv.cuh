// Phase qkv of one token: RMSNorm of x, Q, K and V with their biases, per-head norms of Q and K, RoPE, cache append.
// Bytes: the weights of wq, wk, wv once; dim floats of x from L2 per block. FLOPs: 2 per weight.
// A warp computes the two rows that RoPE turns into each other, so that what comes after the product stays in registers.
// Where a head must be whole first (its norm, or a block of a quantized cache), a block computes a head instead: fewer items
// than multiprocessors, the price of those models.
#pragma once
#include "gemv.cuh"
#include "kv_cache.cuh"
#include "rope.cuh"
#include "stage.cuh"

namespace cqil::cuda {

// One head of Q, K or V.
struct HeadOf {
  const Matrix* w;
  const float *bias, *norm;
  int head;
  bool query, turned;
  uint8_t* cache;  // the row of K or V
};

__device__ __forceinline__ HeadOf head_of(const DeviceModel& m, const DeviceSession& s, int layer_index, int head, int position) {
  const DeviceLayer& layer = m.layers[layer_index];
  if (head < m.n_heads) return {&layer.wq, layer.bq, layer.q_norm, head, true, true, nullptr};
  const int kv = (head - m.n_heads) % m.n_kv_heads;
  const int64_t at = cache_offset(m, s, layer_index, kv, position);
  if (head < m.n_heads + m.n_kv_heads) return {&layer.wk, layer.bk, layer.k_norm, kv, false, true, s.keys + at};
  return {&layer.wv, layer.bv, nullptr, kv, false, false, s.values + at};
}

__device__ __forceinline__ bool heads_must_be_whole(const DeviceModel& m, const DeviceSession& s, int layer) {
  return s.size.kv_dtype == CQIL_Q8_0 || m.layers[layer].q_norm || m.layers[layer].k_norm;
}

// Norm, RoPE and the way to its place of a head of head_stride floats, by one warp; padding is zero.
__device__ __forceinline__ void finish_head(const DeviceModel& m, const DeviceSession& s, const HeadOf& h, int position, float* values,
                                            float* query) {
  if (h.norm) {
    float squares = 0;
    for (int i = lane_id(); i < m.head_dim; i += kWarpSize) squares += values[i] * values[i];
    const float scale = inverse_root(warp_sum(squares) / static_cast<float>(m.head_dim) + m.norm_eps);
    for (int i = lane_id(); i < m.head_dim; i += kWarpSize) values[i] = values[i] * scale * h.norm[i];
    sync_warp();
  }
  if (h.turned) {
    for (int i = lane_id(); i < m.head_dim / 2; i += kWarpSize) {
      const Pair p = rope_pair(m, i);
      rotate(m, s, position, i, values[p.first], values[p.second]);
    }
    sync_warp();
  }
  if (h.query)
    for (int i = lane_id(); i < s.head_stride; i += kWarpSize) query[i] = values[i];
  else store_row(h.cache, s.size.kv_dtype, values, s.head_stride);
}

__device__ __forceinline__ RowSums head_rows(const DeviceModel& m, const HeadOf& h, const Pair& p, const SharedVector& x) {
  const int row = h.head * m.head_dim;
  RowSums sums = dot_two(*h.w, row + p.first, row + p.second, 0, m.dim, x);
  if (h.bias) {
    sums.of[0] += h.bias[row + p.first];
    sums.of[1] += h.bias[row + p.second];
  }
  return sums;
}

__device__ __forceinline__ void qkv_by_pairs(const Step& step, const LaneRange& lanes, int position) {
  const DeviceModel& m = step.model;
  const DeviceSession& s = step.session;
  const int pairs = m.head_dim / 2, heads = m.n_heads + 2 * m.n_kv_heads;
  for_lanes(
      lanes, s.dim_stride, heads * pairs,
      [&](int first, int n, const SharedVector& x) { stage_lane_norms(x, m, s, lanes.first_layer, first, n, false); },
      [&](int lane, int item, const SharedVector& x) {
        const HeadOf h = head_of(m, s, lanes.first_layer + lane, item / pairs, position);
        const int i = item % pairs;
        const Pair p = rope_pair(m, i);
        RowSums sums = head_rows(m, h, p, x);
        if (lane_id() != 0) return;
        if (h.turned) rotate(m, s, position, i, sums.of[0], sums.of[1]);
        if (h.query) {
          float* query = lane_row(s, s.query, s.query_stride, lane, 0) + h.head * s.head_stride;
          query[p.first] = sums.of[0];
          query[p.second] = sums.of[1];
        } else {
          store_value(h.cache, s.size.kv_dtype, p.first, sums.of[0]);
          store_value(h.cache, s.size.kv_dtype, p.second, sums.of[1]);
        }
      });
}

__device__ __forceinline__ void qkv_by_heads(const Step& step, const LaneRange& lanes, int position) {
  const DeviceModel& m = step.model;
  const DeviceSession& s = step.session;
  const int heads = m.n_heads + 2 * m.n_kv_heads;
  const SharedVector x{0};
  float* values = shared_floats() + s.dim_stride;
  for (int lane = lanes.first_lane; lane < lanes.first_lane + lanes.n_lanes; lane++) {
    sync_block();
    stage_lane_norms(x, m, s, lanes.first_layer, lane, 1, false);
    for (int head = static_cast<int>(blockIdx.x); head < heads; head += static_cast<int>(gridDim.x)) {
      sync_block();
      const HeadOf h = head_of(m, s, lanes.first_layer + lane, head, position);
      for (int i = m.head_dim + static_cast<int>(threadIdx.x); i < s.head_stride; i += kThreads) values[i] = 0;
      for (int i = warp_id(); i < m.head_dim / 2; i += kWarps) {
        const Pair p = rope_pair(m, i);
        const RowSums sums = head_rows(m, h, p, x);
        if (lane_id() == 0) {
          values[p.first] = sums.of[0];
          values[p.second] = sums.of[1];
        }
      }
      sync_block();
      if (warp_id() == 0) finish_head(m, s, h, position, values, lane_row(s, s.query, s.query_stride, lane, 0) + h.head * s.head_stride);
    }
  }
}

__device__ __forceinline__ void qkv_phase(const Step& step, const LaneRange& lanes) {
  const int position = load_fresh(step.session.position);
  if (heads_must_be_whole(step.model, step.session, lanes.first_layer + lanes.first_lane)) qkv_by_heads(step, lanes, position);
  else qkv_by_pairs(step, lanes, position);
}

// The rows this warp will start with.
__device__ __forceinline__ void prefetch_qkv(const Step& step, const LaneRange& lanes) {
  const DeviceModel& m = step.model;
  const int pairs = m.head_dim / 2, items = (m.n_heads + 2 * m.n_kv_heads) * pairs, item = grid_warp();
  if (item >= items * lanes.n_lanes) return;
  const int in_lane = item % items;
  const HeadOf h = head_of(m, step.session, lanes.first_layer + lanes.first_lane + item / items, in_lane / pairs, 0);
  const Pair p = rope_pair(m, in_lane % pairs);
  prefetch_row(*h.w, h.head * m.head_dim + p.first);
  prefetch_row(*h.w, h.head * m.head_dim + p.second);
}

}  // namespace cqil::cuda
