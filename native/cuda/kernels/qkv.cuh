// Phase qkv of one token: RMSNorm of x, Q, K and V with their biases, per-head norms of Q and K, RoPE, cache append.
// Bytes: the weights of wq, wk, wv once; dim floats of x from L2 per block. FLOPs: 2 per weight.
// A warp computes the two rows that RoPE turns into each other, so that what comes after the product stays in
// registers. Where a head must be whole first (its norm, or a block of a quantized cache), a block computes a head
// instead: fewer items than multiprocessors, the price of those models.
#pragma once
#include "common/gemv.cuh"
#include "common/kv_cache.cuh"
#include "common/rope.cuh"
#include "common/stage.cuh"

namespace cqil::cuda {

constexpr int kLayersAhead = 8;

// One head of Q, K or V.
struct HeadOf {
  const Matrix* w;
  const float *bias, *norm;
  int head;
  bool query, turned;
};

__device__ __forceinline__ HeadOf head_of(const DeviceModel& m, int layer_index, int head) {
  const DeviceLayer& layer = m.layers[layer_index];
  if (head < m.n_heads) return {&layer.wq, layer.bq, layer.q_norm, head, true, true};
  const int kv = head - m.n_heads < m.n_kv_heads ? head - m.n_heads : head - m.n_heads - m.n_kv_heads;
  if (head < m.n_heads + m.n_kv_heads) return {&layer.wk, layer.bk, layer.k_norm, kv, false, true};
  return {&layer.wv, layer.bv, nullptr, kv, false, false};
}

// The row of the cache that a head of K or V goes to.
__device__ __forceinline__ uint8_t* row_of(const DeviceModel& m, const DeviceWorkspace& s, const Place& place,
                                           int kv_dtype, int layer, const HeadOf& h) {
  const int64_t at = cache_offset(m, place, layer, h.head, place.position, cache_row_bytes(kv_dtype, s.head_stride));
  return (h.turned ? place.keys : place.values) + at;
}

CQIL_HOST_DEVICE inline bool heads_must_be_whole(const DeviceModel& m, int kv_dtype) {
  return kv_dtype == CQIL_Q8_0 || m.head_norms != 0;
}

// Finishes a head of head_stride floats, whose padding is zero, by one warp: norm, RoPE, and the copy to its place,
// which is the cache or, for Q, `query`.
__device__ __forceinline__ void finish_head(const DeviceModel& m, const DeviceWorkspace& s, const Place& place,
                                            int kv_dtype, int layer, const HeadOf& h, float* values, float* query) {
  if (h.norm) {
    float squares = 0;
    for (int i = lane_id(); i < m.head_dim; i += kWarpSize) squares = fmaf(values[i], values[i], squares);
    const float scale = norm_scale(divide(warp_sum(squares), static_cast<float>(m.head_dim)), m.norm_eps);
    for (int i = lane_id(); i < m.head_dim; i += kWarpSize) values[i] = values[i] * scale * h.norm[i];
    sync_warp();
  }
  if (h.turned) {
    for (int i = lane_id(); i < m.head_dim / 2; i += kWarpSize) {
      const Pair p = rope_pair(m, i);
      rotate(m, s, place.position, i, values[p.first], values[p.second]);
    }
    sync_warp();
  }
  if (h.query)
    for (int i = lane_id(); i < s.head_stride; i += kWarpSize) query[i] = values[i];
  else store_row(row_of(m, s, place, kv_dtype, layer, h), kv_dtype, values, s.head_stride);
}

template <int kFormat>
__device__ __forceinline__ Run head_run(const DeviceModel& m, const HeadOf& h, int pair) {
  const Pair p = rope_pair(m, pair);
  return run_of<kFormat>(*h.w, h.head * m.head_dim + p.first, h.head * m.head_dim + p.second);
}

// The two rows of a pair after the norm's factor and the bias.
__device__ __forceinline__ void finish_pair(const DeviceModel& m, const HeadOf& h, const Pair& p, float factor,
                                            RowSums& sums) {
  const int row = h.head * m.head_dim;
  sums.of[0] = fmaf(sums.of[0], factor, h.bias ? h.bias[row + p.first] : 0.0f);
  sums.of[1] = fmaf(sums.of[1], factor, h.bias ? h.bias[row + p.second] : 0.0f);
}

template <int kFormat, class Wait>
__device__ __forceinline__ void qkv_by_pairs(const Step& step, const LaneRange& lanes, const Place& place, Wait wait) {
  const DeviceModel& m = step.model;
  const DeviceWorkspace& s = step.workspace;
  const int pairs = m.head_dim / 2, heads = m.n_heads + 2 * m.n_kv_heads;
  // item / pairs, by the rounded up 2^32 / pairs: exact, as item * pairs is far below 2^32.
  auto head_at = [&](int item) {
    return pairs == 1 ? item : static_cast<int>(multiply_high(static_cast<uint32_t>(item), m.pairs_inverse));
  };
  for_lanes<kFormat>(
      step, lanes, s.dim_stride, heads * pairs, 1,
      [&](int lane, int item, int) {
        const int head = head_at(item);
        return head_run<kFormat>(m, head_of(m, lanes.first_layer + lane, head), item - head * pairs);
      },
      wait, [&](int first, int n) { stage_lane_norms<kFormat>(m, s, lanes.first_layer, first, n, false); },
      [&](const Staged<kFormat>& x) { return norm_factor(m, s, x); },
      [&](int lane, int item, auto& stream, const Staged<kFormat>& x, float factor) {
        const int head = head_at(item), i = item - head * pairs;
        const HeadOf h = head_of(m, lanes.first_layer + lane, head);
        const Pair p = rope_pair(m, i);
        RowSums sums = stream.next(h.w->dtype, m.dim, x);
        if (lane_id() != 0) return;
        finish_pair(m, h, p, factor, sums);
        if (h.turned) rotate(m, s, place.position, i, sums.of[0], sums.of[1]);
        if (h.query) {
          float* query = lane_row(s, s.query, s.query_stride, lane, 0) + h.head * s.head_stride;
          query[p.first] = sums.of[0];
          query[p.second] = sums.of[1];
        } else {
          uint8_t* row = row_of(m, s, place, step.kv_dtype, lanes.first_layer + lane, h);
          store_value(row, step.kv_dtype, p.first, sums.of[0]);
          store_value(row, step.kv_dtype, p.second, sums.of[1]);
        }
      });
}

// The pairs of a warp in the heads of its block, lane by lane.
template <int kFormat>
struct HeadCursor {
  const Step* step;
  LaneRange lanes;
  int lane, head, pair;

  __device__ __forceinline__ HeadCursor(const Step& step, const LaneRange& lanes)
      : step(&step), lanes(lanes), lane(lanes.first_lane), head(static_cast<int>(blockIdx.x)), pair(warp_id()) {
    settle();
  }
  __device__ __forceinline__ bool there() const { return lane < lanes.first_lane + lanes.n_lanes; }
  __device__ __forceinline__ Run run() const {
    return head_run<kFormat>(step->model, head_of(step->model, lanes.first_layer + lane, head), pair);
  }
  __device__ __forceinline__ void next() {
    pair += kWarps;
    settle();
  }
  __device__ __forceinline__ void settle() {
    const DeviceModel& m = step->model;
    const int heads = m.n_heads + 2 * m.n_kv_heads;
    // A warp or block that has nothing to do there is behind the end at once.
    if (warp_id() >= m.head_dim / 2 || static_cast<int>(blockIdx.x) >= heads) lane = lanes.first_lane + lanes.n_lanes;
    if (pair >= m.head_dim / 2) pair = warp_id(), head += static_cast<int>(gridDim.x);
    if (head >= heads) head = static_cast<int>(blockIdx.x), lane++;
  }
};

template <int kFormat, class Wait>
__device__ __forceinline__ void qkv_by_heads(const Step& step, const LaneRange& lanes, const Place& place, Wait wait) {
  const DeviceModel& m = step.model;
  const DeviceWorkspace& s = step.workspace;
  RowStream<kFormat, HeadCursor<kFormat>> stream(step, HeadCursor<kFormat>(step, lanes));
  stream.begin();
  wait();
  const Staged<kFormat> x = staged_at<kFormat>(0, s.dim_stride);
  float* values = scratch_floats() + staged_floats(s.dim_stride);
  for (int lane = lanes.first_lane; lane < lanes.first_lane + lanes.n_lanes; lane++) {
    sync_block();
    stage_lane_norms<kFormat>(m, s, lanes.first_layer, lane, 1, false);
    sync_block();
    const float factor = norm_factor(m, s, x);
    for (int head = static_cast<int>(blockIdx.x); head < m.n_heads + 2 * m.n_kv_heads;
         head += static_cast<int>(gridDim.x)) {
      const HeadOf h = head_of(m, lanes.first_layer + lane, head);
      for (int i = m.head_dim + static_cast<int>(threadIdx.x); i < s.head_stride; i += kThreads) values[i] = 0;
      for (int i = warp_id(); i < m.head_dim / 2; i += kWarps) {
        const Pair p = rope_pair(m, i);
        RowSums sums = stream.next(h.w->dtype, m.dim, x);
        finish_pair(m, h, p, factor, sums);
        if (lane_id() == 0) {
          values[p.first] = sums.of[0];
          values[p.second] = sums.of[1];
        }
      }
      sync_block();
      if (warp_id() == 0)
        finish_head(m, s, place, step.kv_dtype, lanes.first_layer + lane, h, values,
                    lane_row(s, s.query, s.query_stride, lane, 0) + h.head * s.head_stride);
      sync_block();
    }
  }
}

// wait() returns when the phase before has ended.
// kHeads: heads_must_be_whole().
template <int kFormat, bool kHeads, class Wait>
__device__ __forceinline__ void qkv_phase(const Step& step, const LaneRange& lanes, Wait wait) {
  const DeviceModel& m = step.model;
  const Place place = place_of(step.workspace, 0);
  prefetch_norms(m, lanes, false);
  // The descriptions of the next layers, which every phase there asks for first.
  const int next = lanes.first_layer + lanes.first_lane + lanes.n_lanes;
  if (blockIdx.x == 0 && next < m.n_layers)
    prefetch(m.layers + next, static_cast<int64_t>(sizeof(DeviceLayer)) * min(m.n_layers - next, kLayersAhead),
             static_cast<int>(threadIdx.x), kThreads);
  if constexpr (kHeads) qkv_by_heads<kFormat>(step, lanes, place, wait);
  else qkv_by_pairs<kFormat>(step, lanes, place, wait);
}

}  // namespace cqil::cuda
