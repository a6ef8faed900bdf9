#include "select.cuh"

#include "common/token_launch.cuh"
#include "prepare.h"

namespace cqil::cuda {
namespace {

__global__ void __launch_bounds__(kThreads, 1) select_kernel(const __grid_constant__ Step step, int token) {
  select_phase(step, token, LaunchBefore{});
}

}  // namespace

cudaError_t prepare_select(int32_t shared_bytes) { return allow_shared_bytes(select_kernel, shared_bytes); }

cudaError_t launch_select(const Step& step, int32_t token, cudaStream_t stream) {
  return launch(select_kernel, walk(step, kSelectSlices, 1, shared_bytes(step)), stream, step, token);
}

}  // namespace cqil::cuda
