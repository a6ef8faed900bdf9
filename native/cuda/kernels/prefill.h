// The phases of several tokens, which the launchers of one token turn to. The same signatures and meaning as in
// launch.h.
#pragma once
#include "launch.h"

namespace cqil::cuda {

cudaError_t prepare_prefill();
cudaError_t prefill_qkv(const Step& step, const LaneRange& lanes, cudaStream_t stream);
cudaError_t prefill_attention(const Step& step, const LaneRange& lanes, cudaStream_t stream);
cudaError_t prefill_attention_out(const Step& step, const LaneRange& lanes, cudaStream_t stream);
cudaError_t prefill_gate_up(const Step& step, const LaneRange& lanes, cudaStream_t stream);
cudaError_t prefill_down_apart(const Step& step, const LaneRange& lanes, cudaStream_t stream);
cudaError_t prefill_head(const Step& step, int32_t first_head, int32_t n_rows, cudaStream_t stream);

// What stands around a product that is not this library's own.
// norm rows of the lanes: what qkv multiplies, or with mlp what gate_up does.
cudaError_t launch_norms(const Step& step, const LaneRange& lanes, bool mlp, cudaStream_t stream);
// Q, K and V without bias, norm and RoPE to where they belong: the end of qkv.
cudaError_t launch_finish_heads(const Step& step, const LaneRange& lanes, cudaStream_t stream);
// parts[0] = x as bf16, parts[1] = x - parts[0] as bf16, part_stride words of two values apart. n is a multiple of 8,
// all at 16 bytes.
cudaError_t launch_split(const float* x, uint32_t* parts, int part_stride, int n, cudaStream_t stream);
// gate = SiLU(gate) * up. n is a multiple of 4, both at 16 bytes.
cudaError_t launch_silu_mul(float* gate, const float* up, int64_t n, cudaStream_t stream);

}  // namespace cqil::cuda
