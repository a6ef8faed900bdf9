// x of the tokens: rows of the embedding, times its scale.
#pragma once
#include "common/dequantize.cuh"

namespace cqil::cuda {

// x rows of n_tokens tokens: the embedding of their ids, eight values a thread.
// Bytes: a row of the table and of x per token.
__device__ __forceinline__ void embed_phase(const Step& step, int n_tokens) {
  const DeviceWorkspace& s = step.workspace;
  const int runs = (step.model.dim + 7) / 8;
  for (int i = static_cast<int>(blockIdx.x) * kThreads + static_cast<int>(threadIdx.x); i < n_tokens * runs;
       i += static_cast<int>(gridDim.x) * kThreads) {
    const int token = i / runs, first = i % runs * 8;
    float values[8];
    eight_weights(step.model.token_embedding, load_fresh(&s.inputs->tokens[token].id), first, values);
    CQIL_UNROLL for (float& value : values) value *= step.model.embedding_scale;
    // The rest of a last run is zero and falls on padding.
    float4* to = reinterpret_cast<float4*>(s.x + static_cast<int64_t>(token) * s.dim_stride + first);
    to[0] = make_float4(values[0], values[1], values[2], values[3]);
    to[1] = make_float4(values[4], values[5], values[6], values[7]);
  }
}

}  // namespace cqil::cuda
