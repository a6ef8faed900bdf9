// The phases of one token that are a product and little more: attention_out, gate_up, down, join, head.
// Bytes: their weights once; the input vector from L2 per block. FLOPs: 2 per weight.
#pragma once
#include "common/cut.cuh"

namespace cqil::cuda {

// In every phase wait() returns when the phase before has ended. kCut: whether rows_are_cut(m.dim).
template <int kFormat, bool kCut, class Wait>
__device__ __forceinline__ void attention_out_phase(const Step& step, const LaneRange& lanes, Wait wait) {
  const DeviceModel& m = step.model;
  const DeviceSession& s = step.session;
  const int cols = m.n_heads * m.head_dim;
  auto store = [&](int lane, int row, float value) {
    const float* bias = m.layers[lanes.first_layer + lane].bo;
    lane_row(s, s.attention_out, s.dim_stride, lane, 0)[row] = bias ? value + bias[row] : value;
  };
  auto run_at = [&](int lane, int row, int first, int count) {
    return run_of<kFormat>(m.layers[lanes.first_layer + lane].wo, row, row + 1, first, count);
  };
  auto dtype_of = [&](int lane) { return m.layers[lanes.first_layer + lane].wo.dtype; };
  auto from = [&](int lane) { return lane_row(s, s.attention, s.attention_stride, lane, 0); };
  if constexpr (kCut) {
    cut_products<kFormat>(
        step, lanes, m.dim, cols, s.attention_stride, run_at, dtype_of, from, wait, [](int) { return 0.0f; },
        [&](int row, float, auto sum_of) {
          for (int lane = lanes.first_lane; lane < lanes.first_lane + lanes.n_lanes; lane++)
            store(lane, row, sum_of(lane));
        });
  } else {
    for_lanes<kFormat>(
        step, lanes, s.attention_stride, (m.dim + 1) / 2, 1,
        [&](int lane, int item, int) { return run_at(lane, 2 * item, 0, cols); }, wait,
        [&](int first, int n) {
          stage_plain<kFormat>(n, cols, s.attention_stride, [&](int l) { return from(first + l); });
        },
        [](const Staged<kFormat>&) { return 1.0f; },
        [&](int lane, int item, auto& stream, const Staged<kFormat>& x, float) {
          const RowSums sums = stream.next(dtype_of(lane), cols, x);
          const int row = 2 * item + lane_id();
          if (lane_id() < 2 && row < m.dim) store(lane, row, lane_id() ? sums.of[1] : sums.of[0]);
        });
  }
}

// SiLU(g) = g / (1 + exp(-g)) (Hendrycks and Gimpel 2016, arXiv 1606.08415), in the gated MLP of Shazeer 2020, arXiv
// 2002.05202.
__device__ __forceinline__ float silu_mul(float gate, float up) { return divide(gate, 1.0f + expf(-gate)) * up; }

template <int kFormat, class Wait>
__device__ __forceinline__ void gate_up_phase(const Step& step, const LaneRange& lanes, Wait wait) {
  const DeviceModel& m = step.model;
  const DeviceSession& s = step.session;
  prefetch_norms(m, lanes, true);
  const int runs = kFormat != kAnyFormat ? 1 : m.gate_up_runs;
  for_lanes<kFormat>(
      step, lanes, s.dim_stride, m.hidden_dim, runs,
      [&](int lane, int row, int i) {
        const DeviceLayer& layer = m.layers[lanes.first_layer + lane];
        if (runs == 2) return run_of<kFormat>(i ? layer.w_up : layer.w_gate, row, row);
        Run run = run_of<kFormat>(layer.w_gate, row, row);
        run.b = row_of<kFormat>(layer.w_up, row);
        return run;
      },
      wait, [&](int first, int n) { stage_lane_norms<kFormat>(m, s, lanes.first_layer, first, n, true); },
      [&](const Staged<kFormat>& x) { return norm_factor(m, s, x); },
      [&](int lane, int row, auto& stream, const Staged<kFormat>& x, float factor) {
        const DeviceLayer& layer = m.layers[lanes.first_layer + lane];
        RowSums sums = stream.next(layer.w_gate.dtype, m.dim, x);
        if (runs == 2) sums.of[1] = stream.next(layer.w_up.dtype, m.dim, x).of[0];
        if (lane_id() == 0)
          lane_row(s, s.gate_up, s.hidden_stride, lane, 0)[row] = silu_mul(factor * sums.of[0], factor * sums.of[1]);
      });
}

// x[i] + every a_j [+ b_j] of the stage, lane by lane.
__device__ __forceinline__ float residual(const DeviceSession& s, int n_lanes, int token, int i) {
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
  const DeviceSession& s = step.session;
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

// The same where rows are not cut: a warp keeps its rows' sums to itself. Vectors that do not fit shared memory at once
// come one after the other, and one that does not fit at all piece by piece, for every round of rows anew.
template <int kFormat, class Wait>
__device__ __forceinline__ void down_whole(const Step& step, const LaneRange& lanes, bool apart, Wait wait) {
  const DeviceModel& m = step.model;
  const DeviceSession& s = step.session;
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

// The rows of the head, two at a time.
template <int kFormat>
struct HeadRowsCursor {
  const Matrix* w;
  int item, items;

  __device__ __forceinline__ bool there() const { return item < items; }
  __device__ __forceinline__ Run run() const { return run_of<kFormat>(*w, 2 * item, 2 * item + 1); }
  __device__ __forceinline__ void next() { item += grid_warps(); }
};

// Row `logits_row` of the logits from token `token`'s x.
template <int kFormat, class Wait>
__device__ __forceinline__ void head_phase(const Step& step, int token, int logits_row, Wait wait) {
  const DeviceModel& m = step.model;
  const DeviceSession& s = step.session;
  prefetch(m.output_norm, int64_t{4} * m.dim, static_cast<int>(threadIdx.x), kThreads);
  const int items = (m.vocab_size + 1) / 2;
  RowStream<kFormat, HeadRowsCursor<kFormat>> stream(step, HeadRowsCursor<kFormat>{&m.output, grid_warp(), items});
  stream.begin();
  wait();
  stage_norms<kFormat>(
      m, s, 1, [&](int, int i) { return quad_of(s.x + static_cast<int64_t>(token) * s.dim_stride, i); },
      [&](int) { return m.output_norm; });
  sync_block();
  const Staged<kFormat> x = staged_at<kFormat>(0, s.dim_stride);
  const float factor = norm_factor(m, s, x);
  float* logits = s.logits + static_cast<int64_t>(logits_row) * m.vocab_size;
  for (int item = grid_warp(); item < items; item += grid_warps()) {
    const RowSums sums = stream.next(m.output.dtype, m.dim, x);
    const int row = 2 * item + lane_id();
    if (lane_id() < 2 && row < m.vocab_size) logits[row] = factor * (lane_id() ? sums.of[1] : sums.of[0]);
  }
}

}  // namespace cqil::cuda
