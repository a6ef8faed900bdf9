// A random model's tensors in a file.
#pragma once
#include <cstdio>
#include <functional>
#include <vector>

#include "small_model.h"

namespace check {

// The tensors of a spec in a file, at offsets that are no multiples of a page; change() may write to the bytes of any.
inline cqil::WeightsSpec in_file(cqil::WeightsSpec spec, const char* path,
                                 const std::function<void(const cqil::TensorSpec&, uint8_t*)>& change = {}) {
  const cqil::Weights random(spec);
  std::FILE* file = std::fopen(path, "wb");
  uint64_t at = 0;
  for (cqil::TensorSpec& tensor : spec.tensors) {
    const cqil_weights& view = random.view();
    const cqil_tensor& once = tensor.role == "output_norm" ? view.output_norm
                              : tensor.role == "output"    ? view.output
                                                           : view.token_embedding;
    const cqil_tensor& from = tensor.layer < 0 ? once : view.layers[tensor.layer].*cqil::layer_slot(tensor.role);
    const auto bytes = static_cast<size_t>(from.rows * cqil::row_bytes(from.dtype, from.cols));
    tensor.offset = at;
    const auto* data = static_cast<const uint8_t*>(from.data);
    std::vector<uint8_t> copy(data, data + bytes);
    if (change) change(tensor, copy.data());
    std::fwrite(copy.data(), 1, bytes, file);
    at += bytes;
    for (; at % 32 != 0; at++) std::fputc(0, file);
  }
  std::fclose(file);
  spec.random = false;
  spec.files = {path};
  return spec;
}

}  // namespace check
