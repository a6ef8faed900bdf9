// The phases of one token as kernels of their own, for graphs of launches. Their bodies are those of the persistent kernel.
// Grids: one block per multiprocessor at most, fewer where there are fewer items than warps; 384 threads a block: as many
// warps as leave each thread the 168 registers that its loads in flight need (gemv.cuh).
#include "attention.cuh"
#include "dequantize.cuh"
#include "mlp.cuh"
#include "prefill.h"
#include "qkv.cuh"
#include "select.cuh"

namespace cqil::cuda {

cudaError_t prepare_persistent();

namespace {

__global__ void __launch_bounds__(kThreads, 1) embed_kernel(const __grid_constant__ Step step) { embed_phase(step, step.n_tokens); }
__global__ void __launch_bounds__(kThreads, 1) qkv_kernel(const __grid_constant__ Step step, LaneRange lanes) { qkv_phase(step, lanes); }
__global__ void __launch_bounds__(kThreads, 1) attention_kernel(const __grid_constant__ Step step, LaneRange lanes) { attention_phase(step, lanes); }
__global__ void __launch_bounds__(kThreads, 1) attention_out_kernel(const __grid_constant__ Step step, LaneRange lanes) {
  attention_out_phase(step, lanes);
}
__global__ void __launch_bounds__(kThreads, 1) gate_up_kernel(const __grid_constant__ Step step, LaneRange lanes) { gate_up_phase(step, lanes); }
__global__ void __launch_bounds__(kThreads, 1) down_kernel(const __grid_constant__ Step step, LaneRange lanes, bool apart) {
  down_phase(step, lanes, apart);
}
__global__ void __launch_bounds__(kThreads, 1) head_kernel(const __grid_constant__ Step step, int token) { head_phase(step, token, 0); }
__global__ void __launch_bounds__(kThreads, 1) select_kernel(const __grid_constant__ Step step, int count, bool advance) {
  select_phase(step, count, advance);
}

// x += the lanes' a_j [+ b_j] and then m_j, in the order of down_phase. Bytes: x twice, the lanes' vectors once.
__global__ void __launch_bounds__(kThreads, 1) join_kernel(const __grid_constant__ Step step, int n_lanes) {
  const DeviceSession& s = step.session;
  const int dim = step.model.dim, n = dim * step.n_tokens;
  for (int at = static_cast<int>(blockIdx.x) * kThreads + static_cast<int>(threadIdx.x); at < n; at += static_cast<int>(gridDim.x) * kThreads) {
    const int token = at / dim, i = at % dim;
    float value = residual(s, n_lanes, token, i);
    for (int lane = 0; lane < n_lanes; lane++) value += load_fresh(lane_row(s, s.mlp_out, s.dim_stride, lane, token) + i);
    s.x[static_cast<int64_t>(token) * s.dim_stride + i] = value;
  }
}

// A grid for `items` items of `each` per block.
LaunchShape walk(const Step& step, int64_t items, int each, int shared_bytes) {
  const int64_t blocks = (items + each - 1) / each;
  const int64_t most = step.multiprocessors;
  return {static_cast<uint32_t>(blocks < most ? blocks : most), 1, 1, kThreads, static_cast<uint32_t>(shared_bytes), false};
}
LaunchShape walk_rows(const Step& step, int64_t warp_items) { return walk(step, warp_items, kWarps, kSharedBytes); }
int64_t half(int64_t n) { return (n + 1) / 2; }

}  // namespace

cudaError_t prepare_kernels() {
  cudaError_t status = prepare_persistent();
  if (status == cudaSuccess) status = prepare_prefill();
  if (status == cudaSuccess) status = allow_shared_bytes(qkv_kernel, kSharedBytes);
  if (status == cudaSuccess) status = allow_shared_bytes(attention_kernel, kSharedBytes);
  if (status == cudaSuccess) status = allow_shared_bytes(attention_out_kernel, kSharedBytes);
  if (status == cudaSuccess) status = allow_shared_bytes(gate_up_kernel, kSharedBytes);
  if (status == cudaSuccess) status = allow_shared_bytes(down_kernel, kSharedBytes);
  if (status == cudaSuccess) status = allow_shared_bytes(head_kernel, kSharedBytes);
  if (status == cudaSuccess) status = allow_shared_bytes(select_kernel, kSharedBytes);
  return status;
}

int32_t shared_memory_bytes() { return kSharedBytes > prefill_shared_bytes() ? kSharedBytes : prefill_shared_bytes(); }

cudaError_t launch_embed(const Step& step, cudaStream_t stream) {
  return launch(embed_kernel, walk(step, static_cast<int64_t>(step.n_tokens) * ((step.model.dim + 7) / 8), kThreads, 0), stream, step);
}

cudaError_t launch_qkv(const Step& step, const LaneRange& lanes, cudaStream_t stream) {
  if (step.n_tokens > 1) return prefill_qkv(step, lanes, stream);
  const DeviceModel& m = step.model;
  return launch(qkv_kernel, walk_rows(step, static_cast<int64_t>(lanes.n_lanes) * (m.n_heads + 2 * m.n_kv_heads) * (m.head_dim / 2)), stream, step, lanes);
}

cudaError_t launch_attention(const Step& step, const LaneRange& lanes, cudaStream_t stream) {
  if (step.n_tokens > 1) return prefill_attention(step, lanes, stream);
  // How many splits there are is known on the device only, so there are as many blocks as there can be work for.
  return launch(attention_kernel, walk(step, static_cast<int64_t>(lanes.n_lanes) * step.model.n_heads * kMaxSplits, 1, kSharedBytes), stream, step, lanes);
}

cudaError_t launch_attention_out(const Step& step, const LaneRange& lanes, cudaStream_t stream) {
  if (step.n_tokens > 1) return prefill_attention_out(step, lanes, stream);
  return launch(attention_out_kernel, walk_rows(step, lanes.n_lanes * half(step.model.dim)), stream, step, lanes);
}

cudaError_t launch_gate_up(const Step& step, const LaneRange& lanes, cudaStream_t stream) {
  if (step.n_tokens > 1) return prefill_gate_up(step, lanes, stream);
  return launch(gate_up_kernel, walk_rows(step, static_cast<int64_t>(lanes.n_lanes) * step.model.hidden_dim), stream, step, lanes);
}

cudaError_t launch_down(const Step& step, const LaneRange& lanes, cudaStream_t stream) {
  if (step.n_tokens == 1) return launch(down_kernel, walk_rows(step, half(step.model.dim)), stream, step, lanes, false);
  const cudaError_t status = prefill_down_apart(step, lanes, stream);
  return status == cudaSuccess ? launch_join(step, lanes.n_lanes, stream) : status;
}

cudaError_t launch_down_apart(const Step& step, const LaneRange& lanes, cudaStream_t stream) {
  if (step.n_tokens > 1) return prefill_down_apart(step, lanes, stream);
  return launch(down_kernel, walk_rows(step, half(step.model.dim)), stream, step, lanes, true);
}

cudaError_t launch_join(const Step& step, int32_t n_lanes, cudaStream_t stream) {
  return launch(join_kernel, walk(step, static_cast<int64_t>(step.n_tokens) * step.model.dim, kThreads, 0), stream, step, n_lanes);
}

cudaError_t launch_head(const Step& step, int32_t first_token, int32_t n_rows, cudaStream_t stream) {
  if (n_rows > 1) return prefill_head(step, first_token, n_rows, stream);
  return launch(head_kernel, walk_rows(step, half(step.model.vocab_size)), stream, step, first_token);
}

cudaError_t launch_select(const Step& step, int32_t count, bool advance, cudaStream_t stream) {
  return launch(select_kernel, walk(step, kSelectSlices, 1, kSharedBytes), stream, step, count, advance);
}

}  // namespace cqil::cuda
