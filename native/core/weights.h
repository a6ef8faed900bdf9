// The model's tensors: mapped files used in place, checked against the shape; or random weights of that shape.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "../backend/backend.h"
#include "mapped_file.h"

namespace cqil {

struct TensorSpec {
  std::string role;  // a TensorRole of lib/checkpoint/types.ts
  int32_t layer;     // -1 for tensors that stand once
  std::string dtype;
  int64_t rows;
  int64_t cols;
  int32_t file;     // index into WeightsSpec::files
  uint64_t offset;  // bytes
};

struct WeightsSpec {
  cqil_shape shape;                       // rope_frequencies points into the vector below
  std::vector<double> rope_frequencies;  // [head_dim / 2]
  std::vector<std::string> files;
  std::vector<TensorSpec> tensors;
  bool random = false;
  uint64_t random_seed = 0;
};

// A layer's tensor of a role; null when layers have none.
cqil_tensor cqil_layer::*layer_slot(const std::string& role);

class Weights {
 public:
  // Throws INVALID_CHECKPOINT, UNSUPPORTED_MODEL, FILE_NOT_FOUND or OUT_OF_MEMORY.
  explicit Weights(WeightsSpec spec);
  Weights(const Weights&) = delete;

  // Borrowed; valid as long as this object.
  const cqil_weights& view() const { return view_; }
  // Of all tensors.
  uint64_t bytes() const { return bytes_; }
  // Brings in bytes [from, to), counted over the tensors in the order they were given. Random weights are there already.
  void prefetch(uint64_t from, uint64_t to) const;
  // The data of the tensors whose last byte is one of [from, to), counted so.
  std::vector<const void*> ending_in(uint64_t from, uint64_t to) const;
  // Gives up the memory of a tensor that is not read again, but for rows of the token embedding: mapped pages, which come back when they
  // are touched, or random weights other than that, which do not.
  void release(const void* data);

 private:
  cqil_tensor* slot(const TensorSpec& spec);
  const void* locate(const TensorSpec& spec, cqil_dtype dtype, uint64_t size);
  const float* as_float32(const cqil_tensor& vector);
  void check_shape(const std::string& name, const cqil_tensor& tensor, int64_t rows, int64_t cols, bool required);
  void check_complete();

  WeightsSpec spec_;
  std::vector<MappedFile> files_;
  std::vector<std::unique_ptr<uint8_t[]>> owned_;  // random tensors, and vectors converted to float32
  std::vector<cqil_layer> layers_;
  cqil_weights view_{};
  std::vector<std::pair<const uint8_t*, uint64_t>> extents_;  // data and bytes of each tensor, as given
  uint64_t bytes_ = 0;
};

}  // namespace cqil
