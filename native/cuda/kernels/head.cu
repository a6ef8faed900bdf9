#include "head.cuh"

#include "common/token_launch.cuh"
#include "prefill.h"
#include "prepare.h"

namespace cqil::cuda {
namespace {

template <int kFormat>
__global__ void __launch_bounds__(kThreads, 1) head_kernel(const __grid_constant__ Step step) {
  allow_next_launch();
  head_phase<kFormat>(step, LaunchBefore{});
}

auto head_of(int format) {
  return for_format(format, [](auto of) { return head_kernel<decltype(of)::value>; });
}

}  // namespace

cudaError_t prepare_head(int32_t shared_bytes) { return allow_shared_bytes_of_all(head_of, shared_bytes); }

cudaError_t launch_head(const Step& step, int32_t first_head, int32_t n_rows, cudaStream_t stream) {
  // Also for one row where there are several tokens, so that its bits do not depend on how many rows are computed.
  if (step.n_tokens > 1) return prefill_head(step, first_head, n_rows, stream);
  return launch(head_of(step.model.output.dtype), walk_rows(step, half(step.model.vocab_size)), stream, step);
}

}  // namespace cqil::cuda
