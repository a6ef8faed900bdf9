// m_j of one token, and what the lanes of a stage add to x.
// Bytes: the weights once; the input vector from L2 per block. FLOPs: 2 per weight.
#pragma once
#include "common/cut.cuh"

namespace cqil::cuda {

// x[i] + every a_j [+ b_j] of the stage, lane by lane.
__device__ __forceinline__ float residual(const DeviceWorkspace& s, int n_lanes, int token, int i) {
  float value = load_fresh(s.x + static_cast<int64_t>(token) * s.dim_stride + i);
  for (int lane = 0; lane < n_lanes; lane++) {
    value += load_fresh(lane_row(s, s.attention_out, s.dim_stride, lane, token) + i);
    if (s.size.bypass_residual)
      for (int k = 1; k <= s.size.bypass && k <= lane; k++)
        value += load_fresh(lane_row(s, s.attention_out, s.dim_stride, lane - k, token) + i);
  }
  return value;
}

// The pieces of the hidden vectors of a range of lanes, lane by lane, for one item of two rows after the other.
template <int kFormat>
struct DownCursor {
  const Step* step;
  LaneRange lanes;
  int items, piece;
  int item, lane, first = 0;  // first: of the piece

  __device__ __forceinline__ DownCursor(const Step& step, const LaneRange& lanes, int items, int piece)
      : step(&step), lanes(lanes), items(items), piece(piece), item(grid_warp()), lane(lanes.first_lane) {}
  __device__ __forceinline__ bool there() const { return item < items; }
  __device__ __forceinline__ Run run() const {
    return run_of<kFormat>(step->model.layers[lanes.first_layer + lane].w_down, 2 * item, 2 * item + 1, first,
                           min(piece, step->model.hidden_dim - first));
  }
  __device__ __forceinline__ void next() {
    first += piece;
    if (first < step->model.hidden_dim) return;
    first = 0;
    if (++lane < lanes.first_lane + lanes.n_lanes) return;
    lane = lanes.first_lane;
    item += grid_warps();
  }
};

// One product over the hidden vectors of all lanes, each lane's sum finished before it is added, so that lanes that run
// apart add up to the same bits. apart: a lane's sum is kept for join_phase instead.
template <int kFormat, class Wait>
__device__ __forceinline__ void down_cut(const Step& step, const LaneRange& lanes, bool apart, Wait wait) {
  const DeviceModel& m = step.model;
  const DeviceWorkspace& s = step.workspace;
  cut_products<kFormat>(
      step, lanes, m.dim, m.hidden_dim, s.hidden_stride,
      [&](int lane, int row, int first, int count) {
        return run_of<kFormat>(m.layers[lanes.first_layer + lane].w_down, row, row + 1, first, count);
      },
      [&](int lane) { return m.layers[lanes.first_layer + lane].w_down.dtype; },
      [&](int lane) { return lane_row(s, s.gate_up, s.hidden_stride, lane, 0); }, wait,
      [&](int row) { return apart ? 0.0f : residual(s, lanes.n_lanes, 0, row); },
      [&](int row, float value, auto sum_of) {
        for (int lane = lanes.first_lane; lane < lanes.first_lane + lanes.n_lanes; lane++) {
          const float sum = sum_of(lane);
          if (apart) lane_row(s, s.mlp_out, s.dim_stride, lane, 0)[row] = sum;
          value += sum;
        }
        if (!apart) s.x[row] = value;
      });
}

// The phase where rows are not cut: a warp keeps its rows' sums to itself. Vectors that do not fit shared memory at
// once come one after the other, and one that does not fit at all piece by piece, for every round of rows anew.
template <int kFormat, class Wait>
__device__ __forceinline__ void down_whole(const Step& step, const LaneRange& lanes, bool apart, Wait wait) {
  const DeviceModel& m = step.model;
  const DeviceWorkspace& s = step.workspace;
  const int vector = staged_floats(s.hidden_stride), end = lanes.first_lane + lanes.n_lanes, items = (m.dim + 1) / 2;
  const int piece = vector <= step.stage_floats ? s.hidden_stride : kPieceFloats;
  const bool at_once = lanes.n_lanes * vector <= step.stage_floats;
  RowStream<kFormat, DownCursor<kFormat>> stream(step, DownCursor<kFormat>(step, lanes, items, piece));
  stream.begin();
  wait();
  for (int base = 0; base < items; base += grid_warps()) {
    const int item = base + grid_warp(), row = 2 * item + (lane_id() & 1);
    const bool stored = item < items && lane_id() < 2 && row < m.dim;
    float value = stored && !apart ? residual(s, lanes.n_lanes, 0, row) : 0.0f;
    for (int lane = lanes.first_lane; lane < end; lane++) {
      float sum = 0;
      for (int first = 0; first < m.hidden_dim; first += piece) {
        const int count = min(piece, m.hidden_dim - first);
        if (!at_once || (base == 0 && lane == lanes.first_lane)) {
          if (base > 0 || lane > lanes.first_lane || first > 0) sync_block();
          stage_plain<kFormat>(at_once ? lanes.n_lanes : 1, count, piece,
                               [&](int l) { return lane_row(s, s.gate_up, s.hidden_stride, lane + l, 0) + first; });
          sync_block();
        }
        if (item >= items) continue;
        const RowSums sums = stream.next(m.layers[lanes.first_layer + lane].w_down.dtype, count,
                                         staged_at<kFormat>(at_once ? lane - lanes.first_lane : 0, piece));
        sum += lane_id() & 1 ? sums.of[1] : sums.of[0];
      }
      if (apart && stored) lane_row(s, s.mlp_out, s.dim_stride, lane, 0)[row] = sum;
      value += sum;
    }
    if (stored && !apart) s.x[row] = value;
  }
}

template <int kFormat, bool kCut, class Wait>
__device__ __forceinline__ void down_phase(const Step& step, const LaneRange& lanes, bool apart, Wait wait) {
  if constexpr (kCut) down_cut<kFormat>(step, lanes, apart, wait);
  else down_whole<kFormat>(step, lanes, apart, wait);
}

}  // namespace cqil::cuda
