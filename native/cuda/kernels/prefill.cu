// Several tokens: what goes before and after the matrix products. Rows of norms and heads are a warp's each.
#include "prefill.h"

#include "common/bf16_parts.cuh"
#include "matmul.h"
#include "prefill_attention.h"
#include "gate_up.cuh"
#include "qkv.cuh"

namespace cqil::cuda {
namespace {

// norm rows of the lanes, from x, or for the MLP from x + a_j + b_j; for the head the first rows, from the x of the
// tokens whose logits are wanted, with the output's norm. Bytes: dim floats in and out per row.
enum class NormOf : int { kAttention, kMlp, kHead };
__global__ void __launch_bounds__(kThreads)
    norm_kernel(const __grid_constant__ Step step, LaneRange lanes, NormOf of, int first_head, int n_rows) {
  const DeviceModel& m = step.model;
  const DeviceWorkspace& s = step.workspace;
  const int item = static_cast<int>(blockIdx.x) * kWarps + warp_id();
  if (item >= lanes.n_lanes * n_rows) return;
  const int lane = lanes.first_lane + item / n_rows, row = item % n_rows, quads = s.dim_stride / 4;
  const int token = of == NormOf::kHead ? token_of_head(step, first_head + row) : row;
  const bool mlp = of == NormOf::kMlp;
  float squares = 0;
  for (int i = lane_id(); i < quads; i += kWarpSize) squares += square_sum(layer_input(s, lane, token, mlp, i));
  const float scale = norm_scale(warp_sum(squares) / static_cast<float>(m.dim), m.norm_eps);
  const float* weight = m.output_norm;
  if (of != NormOf::kHead)
    weight = mlp ? m.layers[lanes.first_layer + lane].mlp_norm : m.layers[lanes.first_layer + lane].attention_norm;
  float4* out = reinterpret_cast<float4*>(lane_row(s, s.norm, s.dim_stride, lane, row));
  for (int i = lane_id(); i < quads; i += kWarpSize) {
    const float4 v = product({layer_input(s, lane, token, mlp, i), norm_weight(weight, i, m.dim)});
    out[i] = make_float4(v.x * scale, v.y * scale, v.z * scale, v.w * scale);
  }
}

cudaError_t norm_rows(const Step& step, const LaneRange& lanes, NormOf of, int first_head, int n_rows,
                      cudaStream_t stream) {
  const uint32_t blocks = static_cast<uint32_t>((lanes.n_lanes * n_rows + kWarps - 1) / kWarps);
  return launch(norm_kernel, {blocks, 1, 1, kThreads, 0, false, false}, stream, step, lanes, of, first_head, n_rows);
}

// Bias, norm, RoPE and cache append of every head of every token. Bytes: the heads in and out.
__global__ void __launch_bounds__(kThreads) finish_heads_kernel(const __grid_constant__ Step step, LaneRange lanes) {
  const DeviceModel& m = step.model;
  const DeviceWorkspace& s = step.workspace;
  const int heads = m.n_heads + 2 * m.n_kv_heads, item = static_cast<int>(blockIdx.x) * kWarps + warp_id();
  if (item >= lanes.n_lanes * step.n_tokens * heads) return;
  const int lane = lanes.first_lane + item / (step.n_tokens * heads), token = item / heads % step.n_tokens;
  const Place place = place_of(s, token);
  const HeadOf h = head_of(m, lanes.first_layer + lane, item % heads);
  float* query = lane_row(s, s.query, s.query_stride, lane, token) + h.head * s.head_stride;
  const float* from = query;
  if (!h.query)
    from = lane_row(s, s.key_value, 2 * m.n_kv_heads * s.head_stride, lane, token) +
           (item % heads - m.n_heads) * s.head_stride;
  float* values = shared_floats() + warp_id() * s.head_stride;
  for (int i = lane_id(); i < s.head_stride; i += kWarpSize) {
    float value = i < m.head_dim ? from[i] : 0.0f;
    if (h.bias && i < m.head_dim) value += h.bias[h.head * m.head_dim + i];
    values[i] = value;
  }
  sync_warp();
  finish_head(m, s, place, load_fresh(&s.inputs->tokens[token].cache.kv_dtype), lanes.first_layer + lane, h, values,
              query);
}

// scores[first_head + i] = logits[i, target] - log(sum(exp(logits[i]))), NaN where a logit is not finite, a block a
// row. Bytes: the rows once, from L2 twice.
__global__ void __launch_bounds__(kThreads) scores_kernel(const __grid_constant__ Step step, int first_head) {
  const DeviceWorkspace& s = step.workspace;
  const int vocab = step.model.vocab_size, head = first_head + static_cast<int>(blockIdx.x);
  const float* logits = s.logits + static_cast<int64_t>(blockIdx.x) * vocab;
  float highest = -INFINITY, sum = 0;
  for (int i = static_cast<int>(threadIdx.x); i < vocab; i += kThreads) highest = fmaxf(highest, logits[i]);
  highest = warp_max(highest);
  float* of_warps = scratch_floats();
  if (lane_id() == 0) of_warps[warp_id()] = highest;
  sync_block();
  for (int i = 0; i < kWarps; i++) highest = fmaxf(highest, of_warps[i]);
  for (int i = static_cast<int>(threadIdx.x); i < vocab; i += kThreads)
    sum += fmaf(logits[i], 0.0f, expf(logits[i] - highest));
  sum = block_sum(sum, 0);
  if (threadIdx.x == 0) {
    const double log_sum_exp = static_cast<double>(highest) + log(static_cast<double>(sum));
    const int target = s.inputs->tokens[token_of_head(step, head)].target;
    s.scores[head] = static_cast<float>(static_cast<double>(logits[target]) - log_sum_exp);
  }
}

// Eight values a thread. Bytes: four in and four out per value.
__global__ void __launch_bounds__(kThreads) split_kernel(const float* x, uint32_t* parts, int part_stride, int n) {
  const int at = (static_cast<int>(blockIdx.x) * kThreads + static_cast<int>(threadIdx.x)) * 8;
  if (at >= n) return;
  float v[8];
  CQIL_UNROLL for (int i = 0; i < 8; i++) v[i] = x[at + i];
  store_parts<2>(parts, part_stride, at / 2, v);
}

// Four values a thread. Bytes: eight in and four out per value.
__global__ void __launch_bounds__(kThreads) silu_mul_kernel(float* gate, const float* up, int64_t n) {
  const int64_t at = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * 4;
  if (at >= n) return;
  float4* to = reinterpret_cast<float4*>(gate + at);
  const float4 g = *to, u = *reinterpret_cast<const float4*>(up + at);
  *to = make_float4(silu_mul(g.x, u.x), silu_mul(g.y, u.y), silu_mul(g.z, u.z), silu_mul(g.w, u.w));
}

LaunchShape in_runs(int64_t n, int each) {
  return {static_cast<uint32_t>((n / each + kThreads - 1) / kThreads), 1, 1, kThreads, 0, false, false};
}

}  // namespace

cudaError_t launch_norms(const Step& step, const LaneRange& lanes, bool mlp, cudaStream_t stream) {
  return norm_rows(step, lanes, mlp ? NormOf::kMlp : NormOf::kAttention, 0, step.n_tokens, stream);
}

cudaError_t launch_finish_heads(const Step& step, const LaneRange& lanes, cudaStream_t stream) {
  const int64_t items =
      static_cast<int64_t>(lanes.n_lanes) * step.n_tokens * (step.model.n_heads + 2 * step.model.n_kv_heads);
  const uint32_t bytes = static_cast<uint32_t>(kWarps * step.workspace.head_stride * 4);
  return launch(finish_heads_kernel,
                {static_cast<uint32_t>((items + kWarps - 1) / kWarps), 1, 1, kThreads, bytes, false, false}, stream,
                step, lanes);
}

cudaError_t launch_split(const float* x, uint32_t* parts, int part_stride, int n, cudaStream_t stream) {
  return launch(split_kernel, in_runs(n, 8), stream, x, parts, part_stride, n);
}

cudaError_t launch_silu_mul(float* gate, const float* up, int64_t n, cudaStream_t stream) {
  return launch(silu_mul_kernel, in_runs(n, 4), stream, gate, up, n);
}

cudaError_t prepare_prefill() {
  cudaError_t status = prepare_matmul();
  return status == cudaSuccess ? prepare_prefill_attention() : status;
}

cudaError_t prefill_qkv(const Step& step, const LaneRange& lanes, cudaStream_t stream) {
  cudaError_t status = launch_norms(step, lanes, false, stream);
  if (status == cudaSuccess) status = matmul_qkv(step, lanes, stream);
  return status == cudaSuccess ? launch_finish_heads(step, lanes, stream) : status;
}

cudaError_t prefill_gate_up(const Step& step, const LaneRange& lanes, cudaStream_t stream) {
  const cudaError_t status = launch_norms(step, lanes, true, stream);
  return status == cudaSuccess ? matmul_gate_up(step, lanes, stream) : status;
}

cudaError_t prefill_head(const Step& step, int32_t first_head, int32_t n_rows, cudaStream_t stream) {
  const cudaError_t status = norm_rows(step, {0, 0, 1}, NormOf::kHead, first_head, n_rows, stream);
  return status == cudaSuccess ? matmul_head(step, n_rows, stream) : status;
}

cudaError_t launch_scores(const Step& step, int32_t first_head, int32_t n_rows, cudaStream_t stream) {
  constexpr uint32_t kBytes = (kReduceFloats + kWarps) * sizeof(float);
  return launch(scores_kernel, {static_cast<uint32_t>(n_rows), 1, 1, kThreads, kBytes, false, false}, stream, step,
                first_head);
}

}  // namespace cqil::cuda
