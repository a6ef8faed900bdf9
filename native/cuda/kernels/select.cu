#include "select.cuh"

#include "common/token_launch.cuh"
#include "prepare.h"

namespace cqil::cuda {
namespace {

__global__ void __launch_bounds__(kThreads, 1) select_kernel(const __grid_constant__ Step step, int first_head) {
  select_phase(step, first_head, static_cast<int>(blockIdx.y), LaunchBefore{});
}

}  // namespace

cudaError_t prepare_select(int32_t shared_bytes) { return allow_shared_bytes(select_kernel, shared_bytes); }

cudaError_t launch_select(const Step& step, int32_t first_head, int32_t n_rows, cudaStream_t stream) {
  LaunchShape shape = walk(step, kSelectSlices, 1, shared_bytes(step));
  shape.grid_y = static_cast<uint32_t>(n_rows);
  return launch(select_kernel, shape, stream, step, first_head);
}

}  // namespace cqil::cuda
