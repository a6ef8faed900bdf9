// LoRA: weights with low-rank updates merged in, W + scale B A. What an adapter does not touch stays where the model
// has it.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "weights.h"
#include "weights_file.h"

namespace cqil {

// A matrix in the adapter's file.
struct AdapterMatrix {
  std::string dtype;  // F32, F16 or BF16
  uint64_t offset;    // bytes
};

// The update of one projection. Rows of B stand as Hugging Face checkpoints have them.
struct LoraPair {
  std::string role;  // wq, wk, wv, wo, w_gate, w_up or w_down
  int32_t layer;
  int32_t rank;
  float scale;
  AdapterMatrix a;  // [rank, cols of W]
  AdapterMatrix b;  // [rows of W, rank]
};

struct AdapterSpec {
  std::string file;
  std::vector<LoraPair> pairs;
};

// The format a merged matrix has: its own, but Q8_0 for formats of fewer bits, whose rounding would undo a small
// update.
cqil_dtype merged_dtype(cqil_dtype dtype);

class MergedWeights {
 public:
  // Computes in float32 and rounds once. base must outlive this. Throws INVALID_CHECKPOINT for what does not fit the
  // model or the file, or gives values that are not finite; FILE_NOT_FOUND; FILE_CHANGED; OUT_OF_MEMORY.
  MergedWeights(Weights& base, const AdapterSpec& spec, int32_t threads);
  MergedWeights(const MergedWeights&) = delete;

  // Borrowed; valid as long as this object and the base.
  const cqil_weights& view() const { return view_; }
  // Bytes of the merged matrices.
  uint64_t bytes() const { return bytes_; }
  // The data of each.
  std::vector<const void*> matrices() const;
  // Frees one that is not read again.
  void release(const void* data);

 private:
  void merge(const LoraPair& pair, const WeightsFile& file, Weights& base, int32_t threads);

  cqil_weights view_;
  std::vector<cqil_layer> layers_;
  std::vector<std::unique_ptr<uint8_t[]>> owned_;
  uint64_t bytes_ = 0;
};

}  // namespace cqil
