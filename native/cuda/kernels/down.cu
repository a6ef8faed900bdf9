#include "down.cuh"

#include "common/token_launch.cuh"
#include "prefill.h"
#include "prepare.h"

namespace cqil::cuda {
namespace {

template <int kFormat, bool kCut>
__global__ void __launch_bounds__(kThreads, 1)
    down_kernel(const __grid_constant__ Step step, LaneRange lanes, bool apart) {
  allow_next_launch();
  down_phase<kFormat, kCut>(step, lanes, apart, LaunchBefore{});
}

// x += the lanes' a_j [+ b_j] and then m_j, in the order of down_phase. Bytes: x twice, the lanes' vectors once.
__global__ void __launch_bounds__(kThreads, 1) join_kernel(const __grid_constant__ Step step, int n_lanes) {
  allow_next_launch();
  wait_for_launch();
  const DeviceWorkspace& s = step.workspace;
  const int dim = step.model.dim, n = dim * step.n_tokens;
  for (int at = static_cast<int>(blockIdx.x) * kThreads + static_cast<int>(threadIdx.x); at < n;
       at += static_cast<int>(gridDim.x) * kThreads) {
    const int token = at / dim, i = at % dim;
    float value = residual(s, n_lanes, token, i);
    for (int lane = 0; lane < n_lanes; lane++)
      value += load_fresh(lane_row(s, s.mlp_out, s.dim_stride, lane, token) + i);
    s.x[static_cast<int64_t>(token) * s.dim_stride + i] = value;
  }
}

auto down_whole_of(int format) {
  return for_format(format, [](auto of) { return down_kernel<decltype(of)::value, false>; });
}
auto down_cut_of(int format) {
  return for_format(format, [](auto of) { return down_kernel<decltype(of)::value, true>; });
}

cudaError_t down_of_token(const Step& step, const LaneRange& lanes, bool apart, cudaStream_t stream) {
  const DeviceModel& m = step.model;
  if (rows_are_cut(m.dim)) {
    const LaunchShape shape = walk_cut(step, lanes, m.dim, m.hidden_dim);
    return launch(down_cut_of(m.format), shape, stream, step, lanes, apart);
  }
  return launch(down_whole_of(m.format), walk_rows(step, half(m.dim)), stream, step, lanes, apart);
}

}  // namespace

cudaError_t prepare_down(int32_t shared_bytes) {
  const cudaError_t status = allow_shared_bytes_of_all(down_whole_of, shared_bytes);
  return status == cudaSuccess ? allow_shared_bytes_of_all(down_cut_of, shared_bytes) : status;
}

cudaError_t launch_down(const Step& step, const LaneRange& lanes, cudaStream_t stream) {
  if (step.n_tokens == 1) return down_of_token(step, lanes, false, stream);
  const cudaError_t status = prefill_down_apart(step, lanes, stream);
  return status == cudaSuccess ? launch_join(step, lanes.n_lanes, stream) : status;
}

cudaError_t launch_down_apart(const Step& step, const LaneRange& lanes, cudaStream_t stream) {
  if (step.n_tokens > 1) return prefill_down_apart(step, lanes, stream);
  return down_of_token(step, lanes, true, stream);
}

cudaError_t launch_join(const Step& step, int32_t n_lanes, cudaStream_t stream) {
  return launch(join_kernel, walk(step, static_cast<int64_t>(step.n_tokens) * step.model.dim, kThreads, 0), stream,
                step, n_lanes);
}

}  // namespace cqil::cuda
