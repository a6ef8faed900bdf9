// Attention of several tokens; its launch function is prefill_attention in prefill.h.
#pragma once
#include "launch.h"

namespace cqil::cuda {

cudaError_t prepare_prefill_attention();
// Dynamic shared memory for this row stride of a head, in floats.
int32_t prefill_attention_bytes(int32_t head_stride);

}  // namespace cqil::cuda
