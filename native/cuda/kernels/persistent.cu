// One token by one cooperative kernel: the phases of a program one after the other, by the same bodies as the kernels of
// phases.cu, with a grid barrier between two of them. Before it waits, every warp asks L2 for the rows it will start the next
// phase with, so that the memory works while the barrier is passed: up to 8 KiB a warp, 12 MiB for 132 multiprocessors.
// One block per multiprocessor: the barrier costs least, a vector is staged once, and 384 threads have 168 registers each.
#include "attention.cuh"
#include "dequantize.cuh"
#include "grid_barrier.cuh"
#include "mlp.cuh"
#include "qkv.cuh"
#include "select.cuh"

namespace cqil::cuda {
namespace {

__device__ __forceinline__ void run_phase(const Step& step, const cqil_phase& phase) {
  const LaneRange lanes = {phase.first_layer, 0, phase.n_lanes};
  switch (phase.kind) {
    case CQIL_EMBED: return embed_phase(step, 1);
    case CQIL_QKV: return qkv_phase(step, lanes);
    case CQIL_ATTENTION: return attention_phase(step, lanes);
    case CQIL_ATTENTION_OUT: return attention_out_phase(step, lanes);
    case CQIL_GATE_UP: return gate_up_phase(step, lanes);
    case CQIL_DOWN: return down_phase(step, lanes, false);
    case CQIL_HEAD: return head_phase(step, 0, 0);
  }
}

__device__ __forceinline__ void prefetch_phase(const Step& step, const cqil_phase& phase) {
  const LaneRange lanes = {phase.first_layer, 0, phase.n_lanes};
  const DeviceModel& m = step.model;
  const int rows = (m.dim + 1) / 2;
  switch (phase.kind) {
    case CQIL_QKV: return prefetch_qkv(step, lanes);
    case CQIL_ATTENTION_OUT: {
      const int lane = grid_warp() / rows;
      if (lane < lanes.n_lanes) prefetch_rows(m.layers[phase.first_layer + lane].wo, grid_warp() % rows);
      return;
    }
    case CQIL_GATE_UP: return prefetch_gate_up(step, lanes);
    case CQIL_DOWN:
      if (grid_warp() < rows) prefetch_rows(m.layers[phase.first_layer].w_down, grid_warp());
      return;
    case CQIL_HEAD:
      if (grid_warp() < (m.vocab_size + 1) / 2) prefetch_rows(m.output, grid_warp());
      return;
    default: return;
  }
}

__global__ void __launch_bounds__(kThreads, 1) token_kernel(const __grid_constant__ Step step, const __grid_constant__ TokenRun run) {
  uint32_t* barrier = step.session.grid_arrivals;
  for (int i = 0; i < run.n_phases; i++) {
    const cqil_phase phase = run.phases[i];
    if (phase.kind == CQIL_HEAD && !run.with_logits) break;
    run_phase(step, phase);
    if (i + 1 == run.n_phases) break;
    prefetch_phase(step, run.phases[i + 1]);
    grid_barrier(barrier);
  }
  if (run.select_count == 0) return;
  grid_barrier(barrier);
  select_phase(step, run.select_count, run.advance);
}

__global__ void __launch_bounds__(kThreads, 1) barriers_kernel(uint32_t* barrier, int n) {
  for (int i = 0; i < n; i++) grid_barrier(barrier);
}

}  // namespace

cudaError_t prepare_persistent() {
  const cudaError_t status = allow_shared_bytes(token_kernel, kSharedBytes);
  return status == cudaSuccess ? allow_shared_bytes(barriers_kernel, kSharedBytes) : status;
}

cudaError_t launch_token(const Step& step, const TokenRun& run, cudaStream_t stream) {
  const LaunchShape shape = {static_cast<uint32_t>(step.multiprocessors), 1, 1, kThreads, kSharedBytes, true};
  return launch(token_kernel, shape, stream, step, run);
}

cudaError_t launch_barriers(const Step& step, int32_t n, cudaStream_t stream) {
  const LaunchShape shape = {static_cast<uint32_t>(step.multiprocessors), 1, 1, kThreads, kSharedBytes, true};
  return launch(barriers_kernel, shape, stream, step.session.grid_arrivals, n);
}

}  // namespace cqil::cuda
