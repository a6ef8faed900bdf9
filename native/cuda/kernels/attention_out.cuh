// a_j of one token: the output projection of attention.
// Bytes: the weights once; the input vector from L2 per block. FLOPs: 2 per weight.
#pragma once
#include "common/cut.cuh"

namespace cqil::cuda {

// wait() returns when the phase before has ended. kCut: whether rows_are_cut(m.dim).
template <int kFormat, bool kCut, class Wait>
__device__ __forceinline__ void attention_out_phase(const Step& step, const LaneRange& lanes, Wait wait) {
  const DeviceModel& m = step.model;
  const DeviceWorkspace& s = step.workspace;
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

}  // namespace cqil::cuda
