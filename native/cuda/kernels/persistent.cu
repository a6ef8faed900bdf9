// One token by one cooperative kernel: the phases of a program one after the other, by the same bodies as the phases'
// own kernels, with a grid barrier between two of them. Between arriving there and waiting, every warp asks for the
// rows it will start the next phase with, as many as its ring holds, so that the memory works while the barrier is
// passed. One block per multiprocessor: the barrier costs least, and a vector is staged once.
#include "attention.cuh"
#include "attention_out.cuh"
#include "common/grid_barrier.cuh"
#include "down.cuh"
#include "embed.cuh"
#include "gate_up.cuh"
#include "head.cuh"
#include "prepare.h"
#include "qkv.cuh"
#include "select.cuh"

namespace cqil::cuda {
namespace {

template <int kFormat, class Wait>
__device__ __forceinline__ void run_phase(const Step& step, const cqil_phase& phase, Wait wait) {
  const LaneRange lanes = {phase.first_layer, 0, phase.n_lanes};
  switch (phase.kind) {
    case CQIL_EMBED: return embed_phase(step, 1);
    case CQIL_QKV:
      if (heads_must_be_whole(step.model, step.kv_dtype)) return qkv_phase<kFormat, true>(step, lanes, wait);
      return qkv_phase<kFormat, false>(step, lanes, wait);
    case CQIL_ATTENTION:
      switch (step.kv_dtype) {
        case CQIL_F32: return attention_phase<CQIL_F32>(step, lanes, wait);
        case CQIL_F16: return attention_phase<CQIL_F16>(step, lanes, wait);
        default: return attention_phase<CQIL_Q8_0>(step, lanes, wait);
      }
    case CQIL_ATTENTION_OUT:
      if (rows_are_cut(step.model.dim)) return attention_out_phase<kFormat, true>(step, lanes, wait);
      return attention_out_phase<kFormat, false>(step, lanes, wait);
    case CQIL_GATE_UP: return gate_up_phase<kFormat>(step, lanes, wait);
    case CQIL_DOWN:
      if (rows_are_cut(step.model.dim)) return down_phase<kFormat, true>(step, lanes, false, wait);
      return down_phase<kFormat, false>(step, lanes, false, wait);
    case CQIL_HEAD: return head_phase<kFormat>(step, wait);
  }
}

template <int kFormat>
__global__ void __launch_bounds__(kThreads, 1)
    token_kernel(const __grid_constant__ Step step, const __grid_constant__ TokenRun run) {
  GridBarrier barrier(step.workspace.grid_arrivals);
  auto wait = [&] { barrier.wait(); };
  // The embedding comes first, and waits for nothing.
  for (int i = 0; i < run.n_phases; i++) {
    const cqil_phase phase = run.phases[i];
    if (phase.kind == CQIL_HEAD && !run.with_logits) break;
    if (i > 0) barrier.arrive();
    run_phase<kFormat>(step, phase, wait);
  }
  if (!run.with_shortlist) return;
  barrier.arrive();
  select_phase(step, 0, 0, wait);
}

__global__ void __launch_bounds__(kThreads, 1) barriers_kernel(uint32_t* counter, int n) {
  GridBarrier barrier(counter);
  for (int i = 0; i < n; i++) {
    barrier.arrive();
    barrier.wait();
  }
}

// One for each format but those whose registers, beside what a whole token needs, are too many.
void (*token_kernel_of(int format))(Step, TokenRun) {
  switch (format) {
    case CQIL_F32: return token_kernel<CQIL_F32>;
    case CQIL_F16: return token_kernel<CQIL_F16>;
    case CQIL_BF16: return token_kernel<CQIL_BF16>;
    case CQIL_Q8_0: return token_kernel<CQIL_Q8_0>;
    case CQIL_Q4_0: return token_kernel<CQIL_Q4_0>;
    default: return nullptr;
  }
}

}  // namespace

cudaError_t prepare_persistent(int32_t shared_bytes) {
  cudaError_t status = allow_shared_bytes(barriers_kernel, shared_bytes);
  for (int format = 0; format < CQIL_DTYPE_COUNT; format++)
    if (status == cudaSuccess && token_kernel_of(format))
      status = allow_shared_bytes(token_kernel_of(format), shared_bytes);
  return status;
}

bool token_supported(const DeviceModel& model) {
  return token_kernel_of(model.format) != nullptr && model.output.dtype == model.format;
}

cudaError_t launch_token(const Step& step, const TokenRun& run, cudaStream_t stream) {
  const LaunchShape shape = {
      static_cast<uint32_t>(step.multiprocessors), 1, 1, kThreads, shared_bytes(step), true, false};
  return launch(token_kernel_of(step.model.format), shape, stream, step, run);
}

cudaError_t launch_barriers(const Step& step, int32_t n, cudaStream_t stream) {
  const LaunchShape shape = {
      static_cast<uint32_t>(step.multiprocessors), 1, 1, kThreads, shared_bytes(step), true, false};
  return launch(barriers_kernel, shape, stream, step.workspace.grid_arrivals, n);
}

}  // namespace cqil::cuda
