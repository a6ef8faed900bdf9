#include "attention.cuh"

#include <initializer_list>

#include "common/token_launch.cuh"
#include "prefill.h"
#include "prepare.h"

namespace cqil::cuda {
namespace {

template <int kCache>
__global__ void __launch_bounds__(kThreads, 1) attention_kernel(const __grid_constant__ Step step, LaneRange lanes) {
  allow_next_launch();
  attention_phase<kCache>(step, lanes, LaunchBefore{});
}

using LanesKernel = void (*)(Step, LaneRange);
LanesKernel attention_kernel_of(int kv_dtype) {
  switch (kv_dtype) {
    case CQIL_F32: return attention_kernel<CQIL_F32>;
    case CQIL_F16: return attention_kernel<CQIL_F16>;
    default: return attention_kernel<CQIL_Q8_0>;
  }
}

}  // namespace

cudaError_t prepare_attention(int32_t shared_bytes) {
  cudaError_t status = cudaSuccess;
  for (int kv_dtype : {CQIL_F32, CQIL_F16, CQIL_Q8_0})
    if (status == cudaSuccess) status = allow_shared_bytes(attention_kernel_of(kv_dtype), shared_bytes);
  return status;
}

cudaError_t launch_attention(const Step& step, const LaneRange& lanes, cudaStream_t stream) {
  if (step.n_tokens > 1) return prefill_attention(step, lanes, stream);
  // How many splits there are is known on the device only, so there are as many blocks as there can be work for.
  return launch(
      attention_kernel_of(step.kv_dtype),
      walk(step, static_cast<int64_t>(lanes.n_lanes) * step.model.n_heads * kMaxSplits, 1, shared_bytes(step)), stream,
      step, lanes);
}

}  // namespace cqil::cuda
