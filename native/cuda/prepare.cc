#include "kernels/prepare.h"

#include <initializer_list>

#include "kernels/prefill.h"

namespace cqil::cuda {

cudaError_t prepare_kernels(int32_t shared_bytes) {
  cudaError_t status = prepare_prefill();
  for (auto prepare : {prepare_qkv, prepare_attention, prepare_attention_out, prepare_gate_up, prepare_down,
                       prepare_head, prepare_select, prepare_persistent})
    if (status == cudaSuccess) status = prepare(shared_bytes);
  return status;
}

}  // namespace cqil::cuda
