#include "attention_out.cuh"

#include "common/token_launch.cuh"
#include "prefill.h"
#include "prepare.h"

namespace cqil::cuda {
namespace {

template <int kFormat, bool kCut>
__global__ void __launch_bounds__(kThreads, 1)
    attention_out_kernel(const __grid_constant__ Step step, LaneRange lanes) {
  allow_next_launch();
  attention_out_phase<kFormat, kCut>(step, lanes, LaunchBefore{});
}

auto attention_out_whole_of(int format) {
  return for_format(format, [](auto of) { return attention_out_kernel<decltype(of)::value, false>; });
}
auto attention_out_cut_of(int format) {
  return for_format(format, [](auto of) { return attention_out_kernel<decltype(of)::value, true>; });
}

}  // namespace

cudaError_t prepare_attention_out(int32_t shared_bytes) {
  const cudaError_t status = allow_shared_bytes_of_all(attention_out_whole_of, shared_bytes);
  return status == cudaSuccess ? allow_shared_bytes_of_all(attention_out_cut_of, shared_bytes) : status;
}

cudaError_t launch_attention_out(const Step& step, const LaneRange& lanes, cudaStream_t stream) {
  if (step.n_tokens > 1) return prefill_attention_out(step, lanes, stream);
  const DeviceModel& m = step.model;
  if (rows_are_cut(m.dim)) {
    const LaunchShape shape = walk_cut(step, lanes, m.dim, m.n_heads * m.head_dim);
    return launch(attention_out_cut_of(m.format), shape, stream, step, lanes);
  }
  return launch(attention_out_whole_of(m.format), walk_rows(step, lanes.n_lanes * half(m.dim)), stream, step, lanes);
}

}  // namespace cqil::cuda
