// The model's tensors: files, mapped and used in place or read into memory, checked against the shape; or random
// weights of that shape.
#pragma once
#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "../backend/backend.h"
#include "shares.h"
#include "weights_file.h"

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

// What layers may have of their own besides tensors; see cqil_layer.
struct LayerSpec {
  int32_t window = 0;
  int32_t rope = 0;
};

// What becomes of stored vectors when they are read.
struct Folding {
  float norm_offset = 0;  // added to the weights of every norm
  float logit_scale = 1;  // on those of the norm before the output projection, and so on every logit
  float stream_unit = 1;  // what 1 in the engine's residual stream stands for; traces are multiplied by it
};

struct WeightsSpec {
  cqil_shape shape;                      // rope_frequencies points into the vector below
  std::vector<double> rope_frequencies;  // [n_ropes, rope_dim / 2]
  std::vector<LayerSpec> layers;         // [n_layers], or empty where none differs from LayerSpec's defaults
  Folding folding;
  std::vector<std::string> files;
  bool mapped = true;  // the files; otherwise they are read into memory of their own
  std::vector<TensorSpec> tensors;
  bool random = false;
  uint64_t random_seed = 0;
  std::optional<RankSpec> rank;  // given where this is one of several ranks, which loads its share
};

// A layer's tensor of a role; null when layers have none.
cqil_tensor cqil_layer::* layer_slot(const std::string& role);

class Weights {
 public:
  // Throws INVALID_CHECKPOINT, UNSUPPORTED_MODEL, FILE_NOT_FOUND or OUT_OF_MEMORY.
  explicit Weights(WeightsSpec spec);
  Weights(const Weights&) = delete;

  // Borrowed; valid as long as this object. On a rank it shows the rank's share alone: see cqil_share.
  const cqil_weights& view() const { return view_; }
  // What each rank holds; null where there are no ranks.
  const Shares* shares() const { return shares_ ? &*shares_ : nullptr; }
  const Folding& folding() const { return spec_.folding; }
  // Bytes of all tensors, or of a rank's share of them.
  uint64_t bytes() const { return bytes_; }

  // Rows of a tensor as it is in its file, of row_bytes each.
  struct Rows {
    const uint8_t* tensor;  // its data
    int64_t first;
    int64_t count;
    uint64_t row_bytes;
    const uint8_t* data() const { return tensor + static_cast<uint64_t>(first) * row_bytes; }
    uint64_t bytes() const { return static_cast<uint64_t>(count) * row_bytes; }
  };
  // Every row once, in the order of the files, in pieces of at least `bytes` bytes where there are as many. Random
  // tensors stay whole, and the others are cut at multiples of CQIL_PREPARED_ROWS.
  std::vector<std::vector<Rows>> pieces(uint64_t bytes) const;
  // Brings rows into memory; random ones are there already. Throws what WeightsFile::read does. Calls for other rows
  // may overlap.
  void bring_in(const Rows& rows);
  // What bring_in() leaves to be done for rows that are used where they are, and not for those that are copied.
  void touch(const Rows& rows) const;
  // What must be in memory before a product reads any of it, and is not: norms and biases, which are zero in the view
  // until they are brought in, as they lie all over the file, and the disk would be waited for at each of them when it
  // is opened; and all of a file that is not mapped.
  void bring_in_rest();
  // Gives up the memory of rows that products do not read again. Mapped pages come back when they are touched. Token
  // embeddings, which are still looked up, stay where they are not mapped. Other rows that were read come back by
  // bring_back(); other random rows do not come back. Calls for other rows may overlap.
  void release(const std::vector<Rows>& rows);
  // Reads a tensor again that had been given up, and says whether it had. The caller gives it up again.
  bool bring_back(const Rows& tensor);

  // Throws FILE_CHANGED when a mapped file has changed since it was opened. Costs a system call for each file.
  void expect_unchanged() const;
  void expect_as_read() const;

 private:
  struct Vector {
    cqil_tensor stored;
    float* values;
    float offset, scale;  // values = (stored + offset) * scale
    bool converted;
  };

  // The columns that a rank keeps of a tensor, copied to memory of their own. Rows need no copy.
  struct Columns {
    const uint8_t* source;  // the first of these columns in the tensor's first row
    uint64_t source_row_bytes;
    std::unique_ptr<uint8_t[]> values;
  };

  cqil_tensor* slot(const TensorSpec& spec);
  void convert(Vector& vector);
  bool in_embedding(const Rows& rows) const;
  WeightsFile* file_of(const uint8_t* data) const;
  const void* locate(const TensorSpec& spec, cqil_dtype dtype, uint64_t size);
  float* float_storage(const cqil_tensor& vector);
  void check_shape(const std::string& name, const cqil_tensor& tensor, int64_t rows, int64_t cols, bool required);
  void check_complete();
  // Cuts the view down to a rank's share; see weights_share.cc.
  void keep_share(const RankSpec& rank);
  void keep_layer(cqil_layer& layer, const cqil_share& share, bool adds_bias);
  void keep_rows(cqil_tensor& matrix, int64_t first, int64_t count);
  void keep_columns(cqil_tensor& matrix, int64_t first, int64_t count);
  void keep_vocabulary(int32_t first, int32_t end);
  void copy_columns(const Columns& columns, const Rows& rows);
  std::vector<Rows>::iterator stored(const void* data);
  void forget(const uint8_t* random);  // frees a random tensor

  WeightsSpec spec_;
  std::vector<std::unique_ptr<WeightsFile>> files_;
  std::vector<std::unique_ptr<uint8_t[]>> owned_;  // random tensors, and vectors converted to float32
  std::vector<cqil_layer> layers_;
  cqil_weights view_{};
  std::vector<Rows> stored_;     // each tensor, as given, or a rank's share of it
  std::vector<Vector> vectors_;  // those of one row
  std::mutex releasing_;
  std::set<const uint8_t*> released_;    // tensors that were read and then given up, in part at least
  std::atomic<uint64_t> brought_in_{0};  // bytes
  uint64_t bytes_ = 0;
  std::optional<Shares> shares_;
  std::map<const uint8_t*, Columns> columns_;  // by the address of their copy
};

}  // namespace cqil
