#include "adapter.h"

#include <algorithm>
#include <atomic>
#include <new>

#include "dtype.h"
#include "error.h"
#include "in_parts.h"
#include "row_codec.h"

namespace cqil {
namespace {

[[noreturn]] void invalid(const std::string& message) { throw Error("INVALID_CHECKPOINT", message); }

struct StoredMatrix {
  const uint8_t* data;
  cqil_dtype dtype;
  int64_t cols;
  const uint8_t* row(int64_t i) const { return data + i * row_bytes(dtype, cols); }
};

StoredMatrix locate(const WeightsFile& file, const AdapterMatrix& matrix, int64_t rows, int64_t cols,
                    const std::string& name) {
  const cqil_dtype dtype = dtype_from_name(matrix.dtype);
  if (dtype != CQIL_F32 && dtype != CQIL_F16 && dtype != CQIL_BF16)
    invalid("The adapter has " + name + " as " + matrix.dtype + "; expected F32, F16 or BF16.");
  const uint64_t size = static_cast<uint64_t>(rows) * static_cast<uint64_t>(row_bytes(dtype, cols));
  if (matrix.offset > file.size() || size > file.size() - matrix.offset)
    invalid(file.path() + " is truncated: the update of " + name + " needs bytes " + std::to_string(matrix.offset) +
            " to " + std::to_string(matrix.offset + size) + ", and the file has " + std::to_string(file.size()) + ".");
  return {file.data() + matrix.offset, dtype, cols};
}

// Where a row of a query or key projection that keeps rotated pairs side by side stands when they are (i, i + rope_dim
// / 2).
int64_t row_before_interleaving(int64_t row, const cqil_shape& shape) {
  const int64_t i = row % shape.head_dim;
  return i < shape.rope_dim ? row - i + i % 2 * (shape.rope_dim / 2) + i / 2 : row;
}

// What a matrix W gains from an adapter: scale B A.
class Update {
 public:
  // interleaved: the shape, where W has its rows in another order than B.
  Update(const StoredMatrix& a, const StoredMatrix& b, const LoraPair& pair, const cqil_shape* interleaved)
      : b_(b), rank_(pair.rank), cols_(a.cols), scale_(pair.scale), interleaved_(interleaved) {
    a_.resize(static_cast<size_t>(rank_ * cols_));
    for (int64_t k = 0; k < rank_; k++) unpack_row(a.dtype, a.row(k), cols_, &a_[static_cast<size_t>(k * cols_)]);
  }

  // to = W + scale B A, rounded to a dtype; false where that gives values that are not finite in it.
  bool add_to(const cqil_tensor& w, cqil_dtype dtype, uint8_t* to, int32_t threads) const {
    const int parts = static_cast<int>(std::min<int64_t>(std::max(1, threads), w.rows));
    const int64_t w_stride = row_bytes(w.dtype, cols_), stride = row_bytes(dtype, cols_);
    // What each part needs: the update of a row [cols], the row itself [cols], and its row of B [rank].
    const size_t floats = static_cast<size_t>(2 * cols_ + rank_);
    std::vector<std::vector<float>> scratch(static_cast<size_t>(parts), std::vector<float>(floats));
    std::atomic<bool> finite{true};
    in_parts(w.rows, parts, [&](int part, int64_t first, int64_t end) {
      float* update = scratch[static_cast<size_t>(part)].data();
      float* weights = update + cols_;
      for (int64_t row = first; row < end; row++) {
        compute(row, update, weights + cols_);
        unpack_row(w.dtype, static_cast<const uint8_t*>(w.data) + row * w_stride, cols_, weights);
        for (int64_t c = 0; c < cols_; c++) weights[c] += update[c];
        if (!pack_row(dtype, weights, cols_, to + row * stride)) finite.store(false, std::memory_order_relaxed);
      }
    });
    return finite;
  }

 private:
  // The update of a row of W.
  void compute(int64_t row, float* update, float* b_row) const {
    unpack_row(b_.dtype, b_.row(interleaved_ ? row_before_interleaving(row, *interleaved_) : row), rank_, b_row);
    std::fill(update, update + cols_, 0.0f);
    for (int64_t k = 0; k < rank_; k++) {
      const float factor = scale_ * b_row[k];
      const float* a_row = &a_[static_cast<size_t>(k * cols_)];
      for (int64_t c = 0; c < cols_; c++) update[c] += factor * a_row[c];
    }
  }

  const StoredMatrix b_;
  const int64_t rank_, cols_;
  const float scale_;
  const cqil_shape* const interleaved_;
  std::vector<float> a_;  // [rank, cols]
};

}  // namespace

cqil_dtype merged_dtype(cqil_dtype dtype) {
  return dtype == CQIL_F32 || dtype == CQIL_F16 || dtype == CQIL_BF16 ? dtype : CQIL_Q8_0;
}

MergedWeights::MergedWeights(Weights& base, const AdapterSpec& spec, int32_t threads) : view_(base.view()) {
  layers_.assign(view_.layers, view_.layers + view_.shape.n_layers);
  view_.layers = layers_.data();
  const WeightsFile file(spec.file);
  for (const LoraPair& pair : spec.pairs) merge(pair, file, base, threads);
  file.expect_unchanged();
  base.expect_unchanged();
}

std::vector<const void*> MergedWeights::matrices() const {
  std::vector<const void*> data;
  for (const auto& storage : owned_) data.push_back(storage.get());
  return data;
}

void MergedWeights::release(const void* data) {
  for (auto& storage : owned_)
    if (storage.get() == data) storage.reset();
}

void MergedWeights::merge(const LoraPair& pair, const WeightsFile& file, Weights& base, int32_t threads) {
  const std::string name = "layer " + std::to_string(pair.layer) + " " + pair.role;
  cqil_tensor cqil_layer::* member = layer_slot(pair.role);
  if (!member || pair.layer < 0 || pair.layer >= view_.shape.n_layers) invalid("The model has no " + name + ".");
  const cqil_tensor from = base.view().layers[pair.layer].*member;
  if (!from.data || from.rows < 2) invalid("The model has no matrix " + name + ".");
  cqil_tensor& to = layers_[static_cast<size_t>(pair.layer)].*member;
  if (to.data != from.data) invalid("The adapter updates " + name + " twice.");
  if (pair.rank < 1 || pair.rank > 1 << 16)
    invalid("The adapter's rank is " + std::to_string(pair.rank) + "; expected 1 to 65536.");
  const StoredMatrix a = locate(file, pair.a, pair.rank, from.cols, name),
                     b = locate(file, pair.b, from.rows, pair.rank, name);

  const cqil_dtype dtype = merged_dtype(from.dtype);
  const uint64_t size = static_cast<uint64_t>(from.rows) * static_cast<uint64_t>(row_bytes(dtype, from.cols));
  std::unique_ptr<uint8_t[]> storage(new (std::nothrow) uint8_t[size]);
  if (!storage)
    throw Error("OUT_OF_MEMORY", "No memory for " + std::to_string(size) + " bytes of " + name + " with its adapter.");
  const bool interleaved = view_.shape.rope_interleaved && (pair.role == "wq" || pair.role == "wk");
  const Update update(a, b, pair, interleaved ? &view_.shape : nullptr);
  const uint64_t from_bytes = static_cast<uint64_t>(row_bytes(from.dtype, from.cols));
  const Weights::Rows rows = {static_cast<const uint8_t*>(from.data), 0, from.rows, from_bytes};
  const bool brought_back = base.bring_back(rows);
  const bool finite = update.add_to(from, dtype, storage.get(), threads);
  if (brought_back) base.release({rows});
  if (!finite)
    invalid("Merging the adapter into " + name + " gives values that are no finite " + dtype_info(dtype).name + ".");
  to = {storage.get(), dtype, from.rows, from.cols};
  owned_.push_back(std::move(storage));
  bytes_ += size;
}

}  // namespace cqil
