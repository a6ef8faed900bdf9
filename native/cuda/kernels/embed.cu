#include "embed.cuh"

#include "common/token_launch.cuh"

namespace cqil::cuda {
namespace {

__global__ void __launch_bounds__(kThreads, 1) embed_kernel(const __grid_constant__ Step step) {
  allow_next_launch();
  wait_for_launch();
  embed_phase(step, step.n_tokens);
}

}  // namespace

cudaError_t launch_embed(const Step& step, cudaStream_t stream) {
  // It follows the copy of the tokens, not a launch.
  LaunchShape shape = walk(step, static_cast<int64_t>(step.n_tokens) * ((step.model.dim + 7) / 8), kThreads, 0);
  shape.overlaps = false;
  return launch(embed_kernel, shape, stream, step);
}

}  // namespace cqil::cuda
