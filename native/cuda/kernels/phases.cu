// The phases of one token as kernels of their own, for graphs of launches. Their bodies are those of the persistent
// kernel. Grids: one block per multiprocessor at most, fewer where there are fewer items than warps. A block of a
// launch begins when the multiprocessor's block of the one before has ended, and fills its rings with weights before it
// waits for the others.
#include "attention.cuh"
#include "common/dequantize.cuh"
#include "mlp.cuh"
#include "prefill.h"
#include "qkv.cuh"
#include "select.cuh"

namespace cqil::cuda {

cudaError_t prepare_persistent(int32_t shared_bytes);

namespace {

// Of the launch before this one in its stream. Every kernel waits for it, so that what waits for this one waits for
// both.
struct LaunchBefore {
  __device__ __forceinline__ void operator()() const { wait_for_launch(); }
};

__global__ void __launch_bounds__(kThreads, 1) embed_kernel(const __grid_constant__ Step step) {
  allow_next_launch();
  wait_for_launch();
  embed_phase(step, step.n_tokens);
}
template <int kFormat>
__global__ void __launch_bounds__(kThreads, 1) qkv_kernel(const __grid_constant__ Step step, LaneRange lanes) {
  allow_next_launch();
  qkv_phase<kFormat, false>(step, lanes, LaunchBefore{});
}
template <int kFormat>
__global__ void __launch_bounds__(kThreads, 1) qkv_heads_kernel(const __grid_constant__ Step step, LaneRange lanes) {
  allow_next_launch();
  qkv_phase<kFormat, true>(step, lanes, LaunchBefore{});
}
template <int kCache>
__global__ void __launch_bounds__(kThreads, 1) attention_kernel(const __grid_constant__ Step step, LaneRange lanes) {
  allow_next_launch();
  attention_phase<kCache>(step, lanes, LaunchBefore{});
}
template <int kFormat, bool kCut>
__global__ void __launch_bounds__(kThreads, 1)
    attention_out_kernel(const __grid_constant__ Step step, LaneRange lanes) {
  allow_next_launch();
  attention_out_phase<kFormat, kCut>(step, lanes, LaunchBefore{});
}
template <int kFormat>
__global__ void __launch_bounds__(kThreads, 1) gate_up_kernel(const __grid_constant__ Step step, LaneRange lanes) {
  allow_next_launch();
  gate_up_phase<kFormat>(step, lanes, LaunchBefore{});
}
template <int kFormat, bool kCut>
__global__ void __launch_bounds__(kThreads, 1)
    down_kernel(const __grid_constant__ Step step, LaneRange lanes, bool apart) {
  allow_next_launch();
  down_phase<kFormat, kCut>(step, lanes, apart, LaunchBefore{});
}
template <int kFormat>
__global__ void __launch_bounds__(kThreads, 1) head_kernel(const __grid_constant__ Step step, int token) {
  allow_next_launch();
  head_phase<kFormat>(step, token, 0, LaunchBefore{});
}
__global__ void __launch_bounds__(kThreads, 1) select_kernel(const __grid_constant__ Step step, int count) {
  select_phase(step, count, LaunchBefore{});
}

// x += the lanes' a_j [+ b_j] and then m_j, in the order of down_phase. Bytes: x twice, the lanes' vectors once.
__global__ void __launch_bounds__(kThreads, 1) join_kernel(const __grid_constant__ Step step, int n_lanes) {
  allow_next_launch();
  wait_for_launch();
  const DeviceSession& s = step.session;
  const int dim = step.model.dim, n = dim * step.n_tokens;
  for (int at = static_cast<int>(blockIdx.x) * kThreads + static_cast<int>(threadIdx.x); at < n;
       at += static_cast<int>(gridDim.x) * kThreads) {
    const int token = at / dim, i = at % dim;
    float value = residual(s, n_lanes, token, i);
    for (int lane = 0; lane < n_lanes; lane++)
      value += load_fresh(lane_row(s, s.mlp_out, s.dim_stride, lane, token) + i);
    s.x[static_cast<int64_t>(token) * s.dim_stride + i] = value;
  }
}

// The kernels of one weight format, or of any; the second of a pair for rows that are cut.
struct PhaseKernels {
  void (*qkv)(Step, LaneRange);
  void (*qkv_heads)(Step, LaneRange);
  void (*attention_out[2])(Step, LaneRange);
  void (*gate_up)(Step, LaneRange);
  void (*down[2])(Step, LaneRange, bool);
  void (*head)(Step, int);
};
template <int kFormat>
constexpr PhaseKernels kPhaseKernels = {qkv_kernel<kFormat>,
                                        qkv_heads_kernel<kFormat>,
                                        {attention_out_kernel<kFormat, false>, attention_out_kernel<kFormat, true>},
                                        gate_up_kernel<kFormat>,
                                        {down_kernel<kFormat, false>, down_kernel<kFormat, true>},
                                        head_kernel<kFormat>};

using LanesKernel = void (*)(Step, LaneRange);
LanesKernel attention_kernel_of(int kv_dtype) {
  switch (kv_dtype) {
    case CQIL_F32: return attention_kernel<CQIL_F32>;
    case CQIL_F16: return attention_kernel<CQIL_F16>;
    default: return attention_kernel<CQIL_Q8_0>;
  }
}

PhaseKernels kernels_of(int format) {
  switch (format) {
    case CQIL_F32: return kPhaseKernels<CQIL_F32>;
    case CQIL_F16: return kPhaseKernels<CQIL_F16>;
    case CQIL_BF16: return kPhaseKernels<CQIL_BF16>;
    case CQIL_Q8_0: return kPhaseKernels<CQIL_Q8_0>;
    case CQIL_Q4_0: return kPhaseKernels<CQIL_Q4_0>;
    case CQIL_Q4_K: return kPhaseKernels<CQIL_Q4_K>;
    case CQIL_Q5_K: return kPhaseKernels<CQIL_Q5_K>;
    case CQIL_Q6_K: return kPhaseKernels<CQIL_Q6_K>;
    default: return kPhaseKernels<kAnyFormat>;
  }
}

// A grid for `items` items of `each` per block.
LaunchShape walk(const Step& step, int64_t items, int each, uint32_t bytes) {
  const int64_t blocks = (items + each - 1) / each;
  const int64_t most = step.multiprocessors;
  return {static_cast<uint32_t>(blocks < most ? blocks : most), 1, 1, kThreads, bytes, false, step.overlaps};
}
LaunchShape walk_rows(const Step& step, int64_t warp_items) {
  return walk(step, warp_items, kWarps, shared_bytes(step));
}
int64_t half(int64_t n) { return (n + 1) / 2; }
// Of cut_products: a block for as many pairs of rows as have a segment for each of its warps.
LaunchShape walk_cut(const Step& step, const LaneRange& lanes, int rows, int cols) {
  return walk_rows(step, half(rows) * segments_of(step.model.format, cols) * lanes.n_lanes);
}

cudaError_t down_of_token(const Step& step, const LaneRange& lanes, bool apart, cudaStream_t stream) {
  const DeviceModel& m = step.model;
  const bool cut = rows_are_cut(m.dim);
  const LaunchShape shape = cut ? walk_cut(step, lanes, m.dim, m.hidden_dim) : walk_rows(step, half(m.dim));
  return launch(kernels_of(m.format).down[cut], shape, stream, step, lanes, apart);
}

}  // namespace

cudaError_t prepare_kernels(int32_t shared_bytes) {
  cudaError_t status = prepare_persistent(shared_bytes);
  if (status == cudaSuccess) status = prepare_prefill();
  for (int format = kAnyFormat; format < CQIL_DTYPE_COUNT; format++) {
    const PhaseKernels kernels = kernels_of(format);
    if (status == cudaSuccess) status = allow_shared_bytes(kernels.qkv, shared_bytes);
    if (status == cudaSuccess) status = allow_shared_bytes(kernels.qkv_heads, shared_bytes);
    for (int cut = 0; cut < 2; cut++) {
      if (status == cudaSuccess) status = allow_shared_bytes(kernels.attention_out[cut], shared_bytes);
      if (status == cudaSuccess) status = allow_shared_bytes(kernels.down[cut], shared_bytes);
    }
    if (status == cudaSuccess) status = allow_shared_bytes(kernels.gate_up, shared_bytes);
    if (status == cudaSuccess) status = allow_shared_bytes(kernels.head, shared_bytes);
  }
  for (int kv_dtype : {CQIL_F32, CQIL_F16, CQIL_Q8_0})
    if (status == cudaSuccess) status = allow_shared_bytes(attention_kernel_of(kv_dtype), shared_bytes);
  if (status == cudaSuccess) status = allow_shared_bytes(select_kernel, shared_bytes);
  return status;
}

cudaError_t launch_embed(const Step& step, cudaStream_t stream) {
  // It follows the copy of the tokens, not a launch.
  LaunchShape shape = walk(step, static_cast<int64_t>(step.n_tokens) * ((step.model.dim + 7) / 8), kThreads, 0);
  shape.overlaps = false;
  return launch(embed_kernel, shape, stream, step);
}

cudaError_t launch_qkv(const Step& step, const LaneRange& lanes, cudaStream_t stream) {
  if (step.n_tokens > 1) return prefill_qkv(step, lanes, stream);
  const DeviceModel& m = step.model;
  const PhaseKernels kernels = kernels_of(m.format);
  const int64_t heads = m.n_heads + 2 * m.n_kv_heads;
  if (heads_must_be_whole(m, step.session))
    return launch(kernels.qkv_heads, walk(step, heads, 1, shared_bytes(step)), stream, step, lanes);
  return launch(kernels.qkv, walk_rows(step, lanes.n_lanes * heads * (m.head_dim / 2)), stream, step, lanes);
}

cudaError_t launch_attention(const Step& step, const LaneRange& lanes, cudaStream_t stream) {
  if (step.n_tokens > 1) return prefill_attention(step, lanes, stream);
  // How many splits there are is known on the device only, so there are as many blocks as there can be work for.
  return launch(
      attention_kernel_of(step.session.size.kv_dtype),
      walk(step, static_cast<int64_t>(lanes.n_lanes) * step.model.n_heads * kMaxSplits, 1, shared_bytes(step)), stream,
      step, lanes);
}

cudaError_t launch_attention_out(const Step& step, const LaneRange& lanes, cudaStream_t stream) {
  if (step.n_tokens > 1) return prefill_attention_out(step, lanes, stream);
  const DeviceModel& m = step.model;
  const bool cut = rows_are_cut(m.dim);
  const LaunchShape shape =
      cut ? walk_cut(step, lanes, m.dim, m.n_heads * m.head_dim) : walk_rows(step, lanes.n_lanes * half(m.dim));
  return launch(kernels_of(m.format).attention_out[cut], shape, stream, step, lanes);
}

cudaError_t launch_gate_up(const Step& step, const LaneRange& lanes, cudaStream_t stream) {
  if (step.n_tokens > 1) return prefill_gate_up(step, lanes, stream);
  return launch(kernels_of(step.model.format).gate_up,
                walk_rows(step, static_cast<int64_t>(lanes.n_lanes) * step.model.hidden_dim), stream, step, lanes);
}

cudaError_t launch_down(const Step& step, const LaneRange& lanes, cudaStream_t stream) {
  if (step.n_tokens == 1) return down_of_token(step, lanes, false, stream);
  const cudaError_t status = prefill_down_apart(step, lanes, stream);
  return status == cudaSuccess ? launch_join(step, lanes.n_lanes, stream) : status;
}

cudaError_t launch_down_apart(const Step& step, const LaneRange& lanes, cudaStream_t stream) {
  if (step.n_tokens > 1) return prefill_down_apart(step, lanes, stream);
  return down_of_token(step, lanes, true, stream);
}

cudaError_t launch_join(const Step& step, int32_t n_lanes, cudaStream_t stream) {
  return launch(join_kernel, walk(step, static_cast<int64_t>(step.n_tokens) * step.model.dim, kThreads, 0), stream,
                step, n_lanes);
}

cudaError_t launch_head(const Step& step, int32_t first_token, int32_t n_rows, cudaStream_t stream) {
  if (n_rows > 1) return prefill_head(step, first_token, n_rows, stream);
  return launch(kernels_of(step.model.output.dtype).head, walk_rows(step, half(step.model.vocab_size)), stream, step,
                first_token);
}

cudaError_t launch_select(const Step& step, int32_t count, cudaStream_t stream) {
  return launch(select_kernel, walk(step, kSelectSlices, 1, shared_bytes(step)), stream, step, count);
}

}  // namespace cqil::cuda
