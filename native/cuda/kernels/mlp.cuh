// The phases of one token that are a product and little more: attention_out, gate_up, down, join, head.
// Bytes: their weights once; the input vector from L2 per block. FLOPs: 2 per weight.
#pragma once
#include "gemv.cuh"
#include "stage.cuh"

namespace cqil::cuda {

// In every phase wait() returns when the phase before has ended.
template <bool kPlain, class Wait>
__device__ __forceinline__ void attention_out_phase(const Step& step, const LaneRange& lanes, Wait wait) {
  const DeviceModel& m = step.model;
  const DeviceSession& s = step.session;
  for_lanes<kPlain>(
      step, lanes, s.attention_stride, (m.dim + 1) / 2, 1,
      [&](int lane, int item, int) { return run_of(m.layers[lanes.first_layer + lane].wo, 2 * item, 2 * item + 1); }, wait,
      [&](int first, int n) {
        stage_plain(n, m.n_heads * m.head_dim, [&](int l) { return lane_row(s, s.attention, s.attention_stride, first + l, 0); });
      },
      [&](int lane, int item, auto& stream, const SharedVector& x) {
        const float* bias = m.layers[lanes.first_layer + lane].bo;
        const RowSums sums = stream.next(x);
        const int row = 2 * item + lane_id();
        if (lane_id() < 2 && row < m.dim) {
          const float value = lane_id() ? sums.of[1] : sums.of[0];
          lane_row(s, s.attention_out, s.dim_stride, lane, 0)[row] = bias ? value + bias[row] : value;
        }
      });
}

// SiLU(g) = g / (1 + exp(-g)) (Hendrycks and Gimpel 2016, arXiv 1606.08415), in the gated MLP of Shazeer 2020, arXiv 2002.05202.
__device__ __forceinline__ float silu_mul(float gate, float up) { return divide(gate, 1.0f + expf(-gate)) * up; }

template <bool kPlain, class Wait>
__device__ __forceinline__ void gate_up_phase(const Step& step, const LaneRange& lanes, Wait wait) {
  const DeviceModel& m = step.model;
  const DeviceSession& s = step.session;
  prefetch_norms(m, lanes, true);
  const int runs = kPlain ? 1 : m.gate_up_runs;
  for_lanes<kPlain>(
      step, lanes, s.dim_stride, m.hidden_dim, runs,
      [&](int lane, int row, int i) {
        const DeviceLayer& layer = m.layers[lanes.first_layer + lane];
        if (runs == 2) return run_of(i ? layer.w_up : layer.w_gate, row, row);
        Run run = run_of(layer.w_gate, row, row);
        run.b = row_of(layer.w_up, row);
        return run;
      },
      wait, [&](int first, int n) { stage_lane_norms(m, s, lanes.first_layer, first, n, true); },
      [&](int lane, int row, auto& stream, const SharedVector& x) {
        RowSums sums = stream.next(x);
        if (runs == 2) sums.of[1] = stream.next(x).of[0];
        const float factor = norm_factor(m, x);
        if (lane_id() == 0) lane_row(s, s.gate_up, s.hidden_stride, lane, 0)[row] = silu_mul(factor * sums.of[0], factor * sums.of[1]);
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
template <bool kPlain, class Wait>
__device__ __forceinline__ void down_phase(const Step& step, const LaneRange& lanes, bool apart, Wait wait) {
  const DeviceModel& m = step.model;
  const DeviceSession& s = step.session;
  const int piece = staged_floats(s.hidden_stride) <= step.stage_floats ? s.hidden_stride : kPieceFloats;
  const int pieces = (m.hidden_dim + piece - 1) / piece, all = pieces * lanes.n_lanes, at_once = step.stage_floats / staged_floats(piece);
  const int items = (m.dim + 1) / 2, rounds = (items + grid_warps() - 1) / grid_warps();
  const int mine = grid_warp() < items ? (items - grid_warp() + grid_warps() - 1) / grid_warps() : 0;
  auto length_of = [&](int i) { return min(piece, m.hidden_dim - i % pieces * piece); };
  auto run_at = [&](int k) {
    const int item = k / all * grid_warps() + grid_warp(), i = k % all;
    return run_of(m.layers[lanes.first_layer + lanes.first_lane + i / pieces].w_down, 2 * item, 2 * item + 1, i % pieces * piece, length_of(i));
  };
  RowStream<kPlain, decltype(run_at)> stream(step, run_at, mine * all);
  stream.begin();
  wait();
  for (int round = 0; round < rounds; round++) {
    const int item = round * grid_warps() + grid_warp(), row = 2 * item + (lane_id() & 1);
    const bool stored = round < mine && lane_id() < 2 && row < m.dim;
    float value = stored && !apart ? residual(s, lanes.n_lanes, 0, row) : 0.0f, sum = 0;
    for (int first = 0; first < all; first += at_once) {
      const int end = min(first + at_once, all);
      if (round == 0 || all > at_once) {
        if (round > 0 || first > 0) sync_block();
        stage_vectors<false>(end - first, piece, [&](int l, int quad) {
          const int i = first + l;
          const float* from = lane_row(s, s.gate_up, s.hidden_stride, lanes.first_lane + i / pieces, 0) + i % pieces * piece;
          return Weighted{4 * quad < length_of(i) ? quad_of(from, quad) : make_float4(0, 0, 0, 0), make_float4(1, 1, 1, 1)};
        });
        sync_block();
      }
      if (round >= mine) continue;
      for (int i = first; i < end; i++) {
        const RowSums sums = stream.next(staged_at(i - first, piece));
        sum += lane_id() & 1 ? sums.of[1] : sums.of[0];
        if (i % pieces < pieces - 1) continue;
        if (apart && stored) lane_row(s, s.mlp_out, s.dim_stride, lanes.first_lane + i / pieces, 0)[row] = sum;
        value += sum;
        sum = 0;
      }
    }
    if (stored && !apart) s.x[row] = value;
  }
}

// Row `logits_row` of the logits from token `token`'s x.
template <bool kPlain, class Wait>
__device__ __forceinline__ void head_phase(const Step& step, int token, int logits_row, Wait wait) {
  const DeviceModel& m = step.model;
  const DeviceSession& s = step.session;
  prefetch(m.output_norm, int64_t{4} * m.dim, static_cast<int>(threadIdx.x), kThreads);
  const int items = (m.vocab_size + 1) / 2;
  auto run_at = [&](int k) {
    const int item = k * grid_warps() + grid_warp();
    return run_of(m.output, 2 * item, 2 * item + 1);
  };
  RowStream<kPlain, decltype(run_at)> stream(step, run_at, grid_warp() < items ? (items - grid_warp() + grid_warps() - 1) / grid_warps() : 0);
  stream.begin();
  wait();
  stage_norms(
      m, s, 1, [&](int, int i) { return quad_of(s.x + static_cast<int64_t>(token) * s.dim_stride, i); }, [&](int) { return m.output_norm; });
  sync_block();
  const SharedVector x = staged_at(0, s.dim_stride);
  const float factor = norm_factor(m, x);
  float* logits = s.logits + static_cast<int64_t>(logits_row) * m.vocab_size;
  for (int item = grid_warp(); item < items; item += grid_warps()) {
    const RowSums sums = stream.next(x);
    const int row = 2 * item + lane_id();
    if (lane_id() < 2 && row < m.vocab_size) logits[row] = factor * (lane_id() ? sums.of[1] : sums.of[0]);
  }
}

}  // namespace cqil::cuda
