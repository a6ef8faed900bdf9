// The gated MLP's hidden vector of one token.
// Bytes: the weights once; the input vector from L2 per block. FLOPs: 2 per weight.
#pragma once
#include "common/stage.cuh"

namespace cqil::cuda {

// SiLU(g) = g / (1 + exp(-g)) (Hendrycks and Gimpel 2016, arXiv 1606.08415), in the gated MLP of Shazeer 2020, arXiv
// 2002.05202.
__device__ __forceinline__ float silu_mul(float gate, float up) { return divide(gate, 1.0f + expf(-gate)) * up; }

template <int kFormat, class Wait>
__device__ __forceinline__ void gate_up_phase(const Step& step, const LaneRange& lanes, Wait wait) {
  const DeviceModel& m = step.model;
  const DeviceWorkspace& s = step.workspace;
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

}  // namespace cqil::cuda
