// The phases of one token that are a product and little more: attention_out, gate_up, down, join, head.
// Bytes: their weights once; the input vector from L2 per block. FLOPs: 2 per weight.
#pragma once
#include "gemv.cuh"
#include "stage.cuh"

namespace cqil::cuda {

__device__ __forceinline__ void attention_out_phase(const Step& step, const LaneRange& lanes) {
  const DeviceModel& m = step.model;
  const DeviceSession& s = step.session;
  for_lanes(
      lanes, s.attention_stride, (m.dim + 1) / 2,
      [&](int first, int n, const SharedVector& x) {
        for (int l = 0; l < n; l++)
          stage_plain({x.first + l * (s.attention_stride / 4)}, lane_row(s, s.attention, s.attention_stride, first + l, 0), m.n_heads * m.head_dim);
      },
      [&](int lane, int item, const SharedVector& x) {
        const DeviceLayer& layer = m.layers[lanes.first_layer + lane];
        const RowSums sums = dot_two(layer.wo, 2 * item, 2 * item + 1, 0, layer.wo.cols, x);
        const int row = 2 * item + lane_id();
        if (lane_id() < 2 && row < m.dim) {
          const float value = lane_id() ? sums.of[1] : sums.of[0];
          lane_row(s, s.attention_out, s.dim_stride, lane, 0)[row] = layer.bo ? value + layer.bo[row] : value;
        }
      });
}

// SiLU(g) = g / (1 + exp(-g)) (Hendrycks and Gimpel 2016, arXiv 1606.08415), in the gated MLP of Shazeer 2020, arXiv 2002.05202.
__device__ __forceinline__ float silu_mul(float gate, float up) { return divide(gate, 1.0f + expf(-gate)) * up; }

__device__ __forceinline__ void gate_up_phase(const Step& step, const LaneRange& lanes) {
  const DeviceModel& m = step.model;
  const DeviceSession& s = step.session;
  for_lanes(
      lanes, s.dim_stride, m.hidden_dim,
      [&](int first, int n, const SharedVector& x) { stage_lane_norms(x, m, s, lanes.first_layer, first, n, true); },
      [&](int lane, int row, const SharedVector& x) {
        const DeviceLayer& layer = m.layers[lanes.first_layer + lane];
        const Row gate_row = row_of(layer.w_gate, row), up_row = row_of(layer.w_up, row);
        // Where the formats differ, each row goes with itself.
        const bool alike = layer.w_gate.dtype == layer.w_up.dtype;
        RowSums sums = {};
        for (int turn = 0; turn < (alike ? 1 : 2); turn++) {
          const RowSums found = dot_rows(turn ? layer.w_up.dtype : layer.w_gate.dtype, turn ? up_row : gate_row, alike || turn ? up_row : gate_row, 0, m.dim, x.first);
          if (turn == 0) sums.of[0] = found.of[0];
          if (turn == 1 || alike) sums.of[1] = found.of[1];
        }
        if (lane_id() == 0) lane_row(s, s.gate_up, s.hidden_stride, lane, 0)[row] = silu_mul(sums.of[0], sums.of[1]);
      });
}

// x[i] + every a_j [+ b_j] of the stage, lane by lane.
__device__ __forceinline__ float residual(const DeviceSession& s, int n_lanes, int token, int i) {
  float value = load_fresh(s.x + static_cast<int64_t>(token) * s.dim_stride + i);
  for (int lane = 0; lane < n_lanes; lane++) {
    value += load_fresh(lane_row(s, s.attention_out, s.dim_stride, lane, token) + i);
    if (s.size.bypass_residual)
      for (int k = 1; k <= s.size.bypass && k <= lane; k++) value += load_fresh(lane_row(s, s.attention_out, s.dim_stride, lane - k, token) + i);
  }
  return value;
}

// One product over the hidden vectors of all lanes, each lane's sum finished before it is added, so that lanes that run apart
// add up to the same bits. Vectors that do not fit shared memory at once come piece by piece, for every round of rows anew.
// apart: a lane's sum is kept for join_phase instead.
__device__ __forceinline__ void down_phase(const Step& step, const LaneRange& lanes, bool apart) {
  const DeviceModel& m = step.model;
  const DeviceSession& s = step.session;
  const int piece = s.hidden_stride <= kStageFloats ? s.hidden_stride : kStageFloats;
  const int pieces = (m.hidden_dim + piece - 1) / piece, all = pieces * lanes.n_lanes, at_once = kStageFloats / piece;
  const int items = (m.dim + 1) / 2, rounds = (items + grid_warps() - 1) / grid_warps();
  for (int round = 0; round < rounds; round++) {
    const int item = round * grid_warps() + grid_warp(), row = 2 * item + (lane_id() & 1);
    const bool mine = item < items, stored = mine && lane_id() < 2 && row < m.dim;
    float value = stored && !apart ? residual(s, lanes.n_lanes, 0, row) : 0.0f, sum = 0;
    for (int first = 0; first < all; first += at_once) {
      const int end = first + at_once < all ? first + at_once : all;
      if (round == 0 || all > at_once) {
        sync_block();
        for (int i = first; i < end; i++) {
          const int from = i % pieces * piece, rest = m.hidden_dim - from;
          stage_plain({(i - first) * (piece / 4)}, lane_row(s, s.gate_up, s.hidden_stride, lanes.first_lane + i / pieces, 0) + from, rest < piece ? rest : piece);
        }
        sync_block();
      }
      if (!mine) continue;
      for (int i = first; i < end; i++) {
        const int lane = lanes.first_lane + i / pieces, from = i % pieces * piece, rest = m.hidden_dim - from;
        const RowSums sums = dot_two(m.layers[lanes.first_layer + lane].w_down, 2 * item, 2 * item + 1, from, rest < piece ? rest : piece, {(i - first) * (piece / 4)});
        sum += lane_id() & 1 ? sums.of[1] : sums.of[0];
        if (i % pieces < pieces - 1) continue;
        if (apart && stored) lane_row(s, s.mlp_out, s.dim_stride, lane, 0)[row] = sum;
        value += sum;
        sum = 0;
      }
    }
    if (stored && !apart) s.x[row] = value;
  }
}

// The rows of an item that is two neighbouring ones.
__device__ __forceinline__ void prefetch_rows(const Matrix& w, int item) {
  prefetch_row(w, 2 * item);
  if (2 * item + 1 < w.rows) prefetch_row(w, 2 * item + 1);
}
__device__ __forceinline__ void prefetch_gate_up(const Step& step, const LaneRange& lanes) {
  const int row = grid_warp() % step.model.hidden_dim, lane = grid_warp() / step.model.hidden_dim;
  if (lane >= lanes.n_lanes) return;
  const DeviceLayer& layer = step.model.layers[lanes.first_layer + lanes.first_lane + lane];
  prefetch_row(layer.w_gate, row);
  prefetch_row(layer.w_up, row);
}

// Row `logits_row` of the logits from token `token`'s x.
__device__ __forceinline__ void head_phase(const Step& step, int token, int logits_row) {
  const DeviceModel& m = step.model;
  const DeviceSession& s = step.session;
  const SharedVector x{0};
  stage_norm(x, m, s.x + static_cast<int64_t>(token) * s.dim_stride, m.output_norm);
  sync_block();
  float* logits = s.logits + static_cast<int64_t>(logits_row) * m.vocab_size;
  for (int item = grid_warp(); item < (m.vocab_size + 1) / 2; item += grid_warps()) {
    const RowSums sums = dot_two(m.output, 2 * item, 2 * item + 1, 0, m.dim, x);
    const int row = 2 * item + lane_id();
    if (lane_id() < 2 && row < m.vocab_size) logits[row] = lane_id() ? sums.of[1] : sums.of[0];
  }
}

}  // namespace cqil::cuda
