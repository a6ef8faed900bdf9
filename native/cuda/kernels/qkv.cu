#include "qkv.cuh"

#include "common/token_launch.cuh"
#include "prefill.h"
#include "prepare.h"

namespace cqil::cuda {
namespace {

template <int kFormat>
__global__ void __launch_bounds__(kThreads, 1) qkv_kernel(const __grid_constant__ Step step, LaneRange lanes) {
  allow_next_launch();
  qkv_phase<kFormat, false>(step, lanes, LaunchBefore{});
}
template <int kFormat>
__global__ void __launch_bounds__(kThreads, 1) qkv_heads_kernel(const __grid_constant__ Step step, LaneRange lanes) {
  allow_next_launch();
  qkv_phase<kFormat, true>(step, lanes, LaunchBefore{});
}

auto qkv_of(int format) {
  return for_format(format, [](auto of) { return qkv_kernel<decltype(of)::value>; });
}
auto qkv_heads_of(int format) {
  return for_format(format, [](auto of) { return qkv_heads_kernel<decltype(of)::value>; });
}

}  // namespace

cudaError_t prepare_qkv(int32_t shared_bytes) {
  const cudaError_t status = allow_shared_bytes_of_all(qkv_of, shared_bytes);
  return status == cudaSuccess ? allow_shared_bytes_of_all(qkv_heads_of, shared_bytes) : status;
}

cudaError_t launch_qkv(const Step& step, const LaneRange& lanes, cudaStream_t stream) {
  if (step.n_tokens > 1) return prefill_qkv(step, lanes, stream);
  const DeviceModel& m = step.model;
  const int64_t heads = m.n_heads + 2 * m.n_kv_heads;
  if (heads_must_be_whole(m, step.kv_dtype))
    return launch(qkv_heads_of(m.format), walk(step, heads, 1, shared_bytes(step)), stream, step, lanes);
  return launch(qkv_of(m.format), walk_rows(step, lanes.n_lanes * heads * (m.head_dim / 2)), stream, step, lanes);
}

}  // namespace cqil::cuda
