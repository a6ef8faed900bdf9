#include "gate_up.cuh"

#include "common/token_launch.cuh"
#include "prefill.h"
#include "prepare.h"

namespace cqil::cuda {
namespace {

template <int kFormat>
__global__ void __launch_bounds__(kThreads, 1) gate_up_kernel(const __grid_constant__ Step step, LaneRange lanes) {
  allow_next_launch();
  gate_up_phase<kFormat>(step, lanes, LaunchBefore{});
}

auto gate_up_of(int format) {
  return for_format(format, [](auto of) { return gate_up_kernel<decltype(of)::value>; });
}

}  // namespace

cudaError_t prepare_gate_up(int32_t shared_bytes) { return allow_shared_bytes_of_all(gate_up_of, shared_bytes); }

cudaError_t launch_gate_up(const Step& step, const LaneRange& lanes, cudaStream_t stream) {
  if (step.n_tokens > 1) return prefill_gate_up(step, lanes, stream);
  return launch(gate_up_of(step.model.format),
                walk_rows(step, static_cast<int64_t>(lanes.n_lanes) * step.model.hidden_dim), stream, step, lanes);
}

}  // namespace cqil::cuda
