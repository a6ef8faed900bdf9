// The products of matmul.cu that have a kernel before or after them; the others are prefill_* themselves.
#pragma once
#include "launch.h"

namespace cqil::cuda {

cudaError_t prepare_matmul();
// query and key_value without bias, norm and RoPE, from norm.
cudaError_t matmul_qkv(const Step& step, const LaneRange& lanes, cudaStream_t stream);
// gate_up from norm.
cudaError_t matmul_gate_up(const Step& step, const LaneRange& lanes, cudaStream_t stream);
// logits rows 0 … n_rows - 1 from rows 0 … n_rows - 1 of norm.
cudaError_t matmul_head(const Step& step, int32_t n_rows, cudaStream_t stream);

}  // namespace cqil::cuda
