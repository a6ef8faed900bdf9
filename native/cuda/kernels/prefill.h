// The phases of several tokens, which phases.cu turns to. The same signatures and meaning as in launch.h.
#pragma once
#include "launch.h"

namespace cqil::cuda {

cudaError_t prepare_prefill();
int32_t prefill_shared_bytes();
cudaError_t prefill_qkv(const Step& step, const LaneRange& lanes, cudaStream_t stream);
cudaError_t prefill_attention(const Step& step, const LaneRange& lanes, cudaStream_t stream);
cudaError_t prefill_attention_out(const Step& step, const LaneRange& lanes, cudaStream_t stream);
cudaError_t prefill_gate_up(const Step& step, const LaneRange& lanes, cudaStream_t stream);
cudaError_t prefill_down_apart(const Step& step, const LaneRange& lanes, cudaStream_t stream);
cudaError_t prefill_head(const Step& step, int32_t first_token, int32_t n_rows, cudaStream_t stream);

}  // namespace cqil::cuda
