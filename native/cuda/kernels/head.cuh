// The logits of one token.
// Bytes: the weights once; the input vector from L2 per block. FLOPs: 2 per weight.
#pragma once
#include "common/stage.cuh"

namespace cqil::cuda {

// The rows of the head, two at a time.
template <int kFormat>
struct HeadRowsCursor {
  const Matrix* w;
  int item, items;

  __device__ __forceinline__ bool there() const { return item < items; }
  __device__ __forceinline__ Run run() const { return run_of<kFormat>(*w, 2 * item, 2 * item + 1); }
  __device__ __forceinline__ void next() { item += grid_warps(); }
};

template <int kFormat, class Wait>
__device__ __forceinline__ void head_phase(const Step& step, Wait wait) {
  const DeviceModel& m = step.model;
  const DeviceWorkspace& s = step.workspace;
  prefetch(m.output_norm, int64_t{4} * m.dim, static_cast<int>(threadIdx.x), kThreads);
  const int items = (m.vocab_size + 1) / 2;
  RowStream<kFormat, HeadRowsCursor<kFormat>> stream(step, HeadRowsCursor<kFormat>{&m.output, grid_warp(), items});
  stream.begin();
  wait();
  stage_norms<kFormat>(m, s, 1, [&](int, int i) { return quad_of(s.x, i); }, [&](int) { return m.output_norm; });
  sync_block();
  const Staged<kFormat> x = staged_at<kFormat>(0, s.dim_stride);
  const float factor = norm_factor(m, s, x);
  for (int item = grid_warp(); item < items; item += grid_warps()) {
    const RowSums sums = stream.next(m.output.dtype, m.dim, x);
    const int row = 2 * item + lane_id();
    if (lane_id() < 2 && row < m.vocab_size) s.logits[row] = factor * (lane_id() ? sums.of[1] : sums.of[0]);
  }
}

}  // namespace cqil::cuda
