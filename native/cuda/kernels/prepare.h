// What prepare_kernels (launch.h) calls: each op lets its kernels of one token have this much shared memory per block.
#pragma once
#include "launch.h"

namespace cqil::cuda {

cudaError_t prepare_qkv(int32_t shared_bytes);
cudaError_t prepare_attention(int32_t shared_bytes);
cudaError_t prepare_attention_out(int32_t shared_bytes);
cudaError_t prepare_gate_up(int32_t shared_bytes);
cudaError_t prepare_down(int32_t shared_bytes);
cudaError_t prepare_head(int32_t shared_bytes);
cudaError_t prepare_select(int32_t shared_bytes);
cudaError_t prepare_persistent(int32_t shared_bytes);

}  // namespace cqil::cuda
