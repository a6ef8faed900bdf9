#include "weights.h"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <functional>
#include <new>

#include "dtype.h"
#include "error.h"
#include "half.h"
#include "random_weights.h"

namespace cqil {
namespace {

struct LayerSlot {
  const char* role;
  cqil_tensor cqil_layer::* member;
};

const LayerSlot kLayerSlots[] = {
    {"attention_norm", &cqil_layer::attention_norm},
    {"wq", &cqil_layer::wq},
    {"wk", &cqil_layer::wk},
    {"wv", &cqil_layer::wv},
    {"wo", &cqil_layer::wo},
    {"bq", &cqil_layer::bq},
    {"bk", &cqil_layer::bk},
    {"bv", &cqil_layer::bv},
    {"bo", &cqil_layer::bo},
    {"q_norm", &cqil_layer::q_norm},
    {"k_norm", &cqil_layer::k_norm},
    {"mlp_norm", &cqil_layer::mlp_norm},
    {"w_gate", &cqil_layer::w_gate},
    {"w_up", &cqil_layer::w_up},
    {"w_down", &cqil_layer::w_down},
    {"attention_post_norm", &cqil_layer::attention_post_norm},
    {"mlp_post_norm", &cqil_layer::mlp_post_norm},
};

bool is_norm(const std::string& role) { return role.size() >= 4 && role.compare(role.size() - 4, 4, "norm") == 0; }

std::string name_of(const TensorSpec& spec) {
  return spec.layer < 0 ? spec.role : "layer " + std::to_string(spec.layer) + " " + spec.role;
}

[[noreturn]] void invalid(const std::string& message) { throw Error("INVALID_CHECKPOINT", message); }

void check_dims(const cqil_shape& shape, size_t n_frequencies, const std::vector<LayerSpec>& layers) {
  const int32_t dims[] = {shape.dim,        shape.hidden_dim, shape.head_dim,  shape.n_heads,
                          shape.n_kv_heads, shape.n_layers,   shape.vocab_size};
  for (int32_t dim : dims)
    if (dim < 1 || dim > 1 << 24)
      invalid("A dimension of the model is " + std::to_string(dim) + "; expected 1 to 16777216.");
  if (shape.n_layers > 1 << 14 || shape.n_heads > 1 << 14 || shape.head_dim > 1 << 12)
    invalid("The model has more layers, heads or channels per head than any model this engine can hold.");
  if (shape.rope_dim % 2 != 0 || shape.rope_dim < 2 || shape.rope_dim > shape.head_dim)
    invalid("RoPE turns " + std::to_string(shape.rope_dim) + " values of a head; expected an even number up to " +
            std::to_string(shape.head_dim) + ".");
  if (shape.n_heads % shape.n_kv_heads != 0) invalid("n_kv_heads does not divide n_heads.");
  if (shape.n_ropes < 1 ||
      n_frequencies != static_cast<size_t>(shape.n_ropes) * static_cast<size_t>(shape.rope_dim / 2))
    invalid("Expected rope_dim / 2 frequencies of each RoPE, found " + std::to_string(n_frequencies) + ".");
  if (!layers.empty() && layers.size() != static_cast<size_t>(shape.n_layers))
    invalid("Expected a window and a RoPE of each layer, found " + std::to_string(layers.size()) + ".");
  for (const LayerSpec& layer : layers)
    if (layer.window < 0 || layer.rope < CQIL_NO_ROPE || layer.rope >= shape.n_ropes)
      invalid("A layer has window " + std::to_string(layer.window) + " and RoPE " + std::to_string(layer.rope) +
              " of " + std::to_string(shape.n_ropes) + ".");
}

}  // namespace

cqil_tensor cqil_layer::* layer_slot(const std::string& role) {
  for (const LayerSlot& entry : kLayerSlots)
    if (role == entry.role) return entry.member;
  return nullptr;
}

Weights::Weights(WeightsSpec spec) : spec_(std::move(spec)) {
  check_dims(spec_.shape, spec_.rope_frequencies.size(), spec_.layers);
  spec_.shape.rope_frequencies = spec_.rope_frequencies.data();
  view_.shape = spec_.shape;
  layers_.assign(static_cast<size_t>(spec_.shape.n_layers), cqil_layer{});
  view_.layers = layers_.data();
  for (size_t i = 0; i < spec_.layers.size(); i++)
    layers_[i].window = spec_.layers[i].window, layers_[i].rope = spec_.layers[i].rope;
  files_.reserve(spec_.files.size());
  for (const std::string& file : spec_.files) files_.push_back(std::make_unique<WeightsFile>(file, spec_.mapped));

  for (const TensorSpec& tensor : spec_.tensors) {
    const cqil_dtype dtype = dtype_from_name(tensor.dtype);
    if (dtype == CQIL_DTYPE_COUNT)
      throw Error("UNSUPPORTED_MODEL", name_of(tensor) + " has the unknown dtype " + tensor.dtype + ".");
    if (tensor.rows < 1 || tensor.cols < 1 || tensor.rows > 1 << 24 || tensor.cols > 1 << 28 ||
        tensor.cols % dtype_info(dtype).block_weights != 0)
      invalid(name_of(tensor) + " of shape [" + std::to_string(tensor.rows) + ", " + std::to_string(tensor.cols) +
              "] cannot be stored as " + tensor.dtype + ".");
    cqil_tensor* at = slot(tensor);
    if (at->data) invalid(name_of(tensor) + " was given twice.");
    const auto per_row = static_cast<uint64_t>(row_bytes(dtype, tensor.cols));
    const uint64_t size = static_cast<uint64_t>(tensor.rows) * per_row;
    *at = {locate(tensor, dtype, size), dtype, tensor.rows, tensor.cols};
    stored_.push_back({static_cast<const uint8_t*>(at->data), 0, tensor.rows, per_row});
    bytes_ += size;
    if (tensor.rows == 1) {
      vectors_.push_back({*at, float_storage(*at), is_norm(tensor.role) ? spec_.folding.norm_offset : 0,
                          tensor.role == "output_norm" ? spec_.folding.logit_scale : 1, false});
      *at = {vectors_.back().values, CQIL_F32, 1, tensor.cols};
    }
  }
  if (!view_.output.data) view_.output = view_.token_embedding;
  check_complete();
  if (spec_.rank) keep_share(*spec_.rank);
  if (spec_.random) bring_in_rest();
}

cqil_tensor* Weights::slot(const TensorSpec& spec) {
  if (spec.layer < 0) {
    if (spec.role == "token_embedding") return &view_.token_embedding;
    if (spec.role == "output_norm") return &view_.output_norm;
    if (spec.role == "output") return &view_.output;
  } else if (spec.layer < spec_.shape.n_layers) {
    cqil_tensor cqil_layer::* member = layer_slot(spec.role);
    if (member) return &(layers_[static_cast<size_t>(spec.layer)].*member);
  }
  invalid("There is no tensor " + name_of(spec) + " in a model of " + std::to_string(spec_.shape.n_layers) +
          " layers.");
}

const void* Weights::locate(const TensorSpec& spec, cqil_dtype dtype, uint64_t size) {
  if (spec_.random) {
    std::unique_ptr<uint8_t[]> storage(new (std::nothrow) uint8_t[size]);
    if (!storage)
      throw Error("OUT_OF_MEMORY", "No memory for " + std::to_string(size) + " bytes of " + name_of(spec) + ".");
    fill_random(storage.get(), dtype, spec.rows, spec.cols, spec_.random_seed * 1000003 + stored_.size());
    owned_.push_back(std::move(storage));
    return owned_.back().get();
  }
  if (spec.file < 0 || static_cast<size_t>(spec.file) >= files_.size())
    invalid(name_of(spec) + " names file " + std::to_string(spec.file) + " of " + std::to_string(files_.size()) + ".");
  const WeightsFile& file = *files_[static_cast<size_t>(spec.file)];
  if (spec.offset > file.size() || size > file.size() - spec.offset)
    invalid(file.path() + " is truncated: " + name_of(spec) + " needs bytes " + std::to_string(spec.offset) + " to " +
            std::to_string(spec.offset + size) + ", and the file has " + std::to_string(file.size()) + ".");
  return file.data() + spec.offset;
}

float* Weights::float_storage(const cqil_tensor& vector) {
  if (dtype_info(vector.dtype).block_weights != 1)
    throw Error("UNSUPPORTED_MODEL", std::string("A norm or bias is stored as ") + dtype_info(vector.dtype).name +
                                         "; expected F32, F16 or BF16.");
  owned_.emplace_back(new uint8_t[static_cast<size_t>(vector.cols) * sizeof(float)]());
  return reinterpret_cast<float*>(owned_.back().get());
}

void Weights::convert(Vector& vector) {
  if (vector.converted) return;
  const size_t count = static_cast<size_t>(vector.stored.cols);
  const uint8_t* source = static_cast<const uint8_t*>(vector.stored.data);
  if (vector.stored.dtype == CQIL_F32) std::memcpy(vector.values, source, count * sizeof(float));  // aligned now
  else
    for (size_t i = 0; i < count; i++) {
      uint16_t half;
      std::memcpy(&half, source + i * 2, sizeof half);
      vector.values[i] = vector.stored.dtype == CQIL_F16 ? float_from_f16(half) : float_from_bf16(half);
    }
  if (vector.offset != 0 || vector.scale != 1)
    for (size_t i = 0; i < count; i++) vector.values[i] = (vector.values[i] + vector.offset) * vector.scale;
  vector.converted = true;
}

void Weights::check_shape(const std::string& name, const cqil_tensor& tensor, int64_t rows, int64_t cols,
                          bool required) {
  if (!tensor.data) {
    if (required) invalid(name + " is missing.");
    return;
  }
  if (tensor.rows != rows || tensor.cols != cols)
    invalid(name + " has shape [" + std::to_string(tensor.rows) + ", " + std::to_string(tensor.cols) + "]; expected [" +
            std::to_string(rows) + ", " + std::to_string(cols) + "].");
}

void Weights::check_complete() {
  const cqil_shape& s = spec_.shape;
  const int64_t q = static_cast<int64_t>(s.n_heads) * s.head_dim;
  const int64_t kv = static_cast<int64_t>(s.n_kv_heads) * s.head_dim;
  check_shape("token_embedding", view_.token_embedding, s.vocab_size, s.dim, true);
  check_shape("output_norm", view_.output_norm, 1, s.dim, true);
  check_shape("output", view_.output, s.vocab_size, s.dim, true);
  for (size_t i = 0; i < layers_.size(); i++) {
    const cqil_layer& layer = layers_[i];
    const std::string prefix = "layer " + std::to_string(i) + " ";
    check_shape(prefix + "attention_norm", layer.attention_norm, 1, s.dim, true);
    check_shape(prefix + "wq", layer.wq, q, s.dim, true);
    check_shape(prefix + "wk", layer.wk, kv, s.dim, true);
    check_shape(prefix + "wv", layer.wv, kv, s.dim, true);
    check_shape(prefix + "wo", layer.wo, s.dim, q, true);
    check_shape(prefix + "bq", layer.bq, 1, q, false);
    check_shape(prefix + "bk", layer.bk, 1, kv, false);
    check_shape(prefix + "bv", layer.bv, 1, kv, false);
    check_shape(prefix + "bo", layer.bo, 1, s.dim, false);
    check_shape(prefix + "q_norm", layer.q_norm, 1, s.head_dim, false);
    check_shape(prefix + "k_norm", layer.k_norm, 1, s.head_dim, false);
    check_shape(prefix + "mlp_norm", layer.mlp_norm, 1, s.dim, true);
    check_shape(prefix + "w_gate", layer.w_gate, s.hidden_dim, s.dim, true);
    check_shape(prefix + "w_up", layer.w_up, s.hidden_dim, s.dim, true);
    check_shape(prefix + "w_down", layer.w_down, s.dim, s.hidden_dim, true);
    const bool post_norms = layers_[0].attention_post_norm.data != nullptr;
    for (const auto& [name, norm] : {std::pair{"attention_post_norm", &layer.attention_post_norm},
                                     std::pair{"mlp_post_norm", &layer.mlp_post_norm}}) {
      check_shape(prefix + name, *norm, 1, s.dim, post_norms);
      if (norm->data && !post_norms) invalid(prefix + name + " stands alone; every layer has both post-norms or none.");
    }
  }
}

std::vector<std::vector<Weights::Rows>> Weights::pieces(uint64_t bytes) const {
  std::vector<Rows> in_order = stored_;
  if (!spec_.random)
    std::sort(in_order.begin(), in_order.end(),
              [](const Rows& a, const Rows& b) { return std::less<>()(a.tensor, b.tensor); });
  std::vector<std::vector<Rows>> pieces;
  uint64_t wanted = 0;  // by the last piece
  for (const Rows& tensor : in_order)
    for (int64_t first = 0; first < tensor.count;) {
      if (wanted == 0) {
        pieces.emplace_back();
        wanted = bytes;
      }
      const int64_t step = CQIL_PREPARED_ROWS, steps = static_cast<int64_t>(wanted / (tensor.row_bytes * step)) + 1;
      const int64_t count = spec_.random ? tensor.count : std::min(tensor.count - first, steps * step);
      pieces.back().push_back({tensor.tensor, first, count, tensor.row_bytes});
      first += count;
      wanted -= std::min(wanted, pieces.back().back().bytes());
    }
  return pieces;
}

void Weights::bring_in(const Rows& rows) {
  const auto cut = columns_.find(rows.tensor);
  if (cut != columns_.end()) {
    const Columns& columns = cut->second;
    // Whole rows are read, as a page holds several of them, and released again where they lie in a mapped file.
    const uint8_t* from = columns.source + static_cast<uint64_t>(rows.first) * columns.source_row_bytes;
    const uint64_t size = static_cast<uint64_t>(rows.count - 1) * columns.source_row_bytes + rows.row_bytes;
    file_of(from)->read(from, size);
    copy_columns(columns, rows);
    unload(from, size);
  } else if (WeightsFile* file = file_of(rows.data())) {
    file->read(rows.data(), rows.bytes());
  }
  brought_in_ += rows.bytes();
  for (Vector& vector : vectors_)
    if (vector.stored.data == rows.tensor) convert(vector);
}

void Weights::touch(const Rows& rows) const {
  if (!spec_.random && spec_.mapped && columns_.count(rows.tensor) == 0) cqil::touch(rows.data(), rows.bytes());
}

void Weights::bring_in_rest() {
  if (!spec_.random && !spec_.mapped && brought_in_ < bytes_)
    for (const Rows& tensor : stored_) bring_in(tensor);
  for (Vector& vector : vectors_) convert(vector);
}

bool Weights::bring_back(const Rows& tensor) {
  std::lock_guard<std::mutex> lock(releasing_);
  if (released_.erase(tensor.tensor) == 0) return false;
  bring_in(tensor);
  return true;
}

WeightsFile* Weights::file_of(const uint8_t* data) const {
  for (const auto& file : files_)
    if (file->holds(data)) return file.get();
  return nullptr;
}

void Weights::expect_unchanged() const {
  for (const auto& file : files_)
    if (file->mapped()) file->expect_unchanged();
}

void Weights::expect_as_read() const {
  for (const auto& file : files_) file->expect_unchanged();
}

bool Weights::in_embedding(const Rows& rows) const {
  const auto* table = static_cast<const uint8_t*>(view_.token_embedding.data);
  const auto size =
      static_cast<std::ptrdiff_t>(view_.token_embedding.rows) * static_cast<std::ptrdiff_t>(rows.row_bytes);
  return rows.tensor >= table && rows.tensor < table + size;
}

void Weights::release(const std::vector<Rows>& all) {
  std::vector<Rows> rows = all;
  if (!spec_.random && !spec_.mapped) {
    std::lock_guard<std::mutex> lock(releasing_);
    rows.erase(std::remove_if(rows.begin(), rows.end(), [&](const Rows& one) { return in_embedding(one); }),
               rows.end());
    for (const Rows& one : rows) released_.insert(one.tensor);
  }
  if (!spec_.random) {
    // Tensors in memory of their own are released one by one: the memory between two of them is not ours.
    rows.erase(std::remove_if(rows.begin(), rows.end(),
                              [&](const Rows& one) {
                                const bool own = columns_.count(one.tensor) > 0;
                                if (own) unload(one.data(), one.bytes());
                                return own;
                              }),
               rows.end());
    // Rows that stand together are given up together: a page on the border of two would stay.
    constexpr uint64_t kGap = 4096;  // more than tensors are apart for the sake of alignment
    for (size_t i = 0; i < rows.size();) {
      const uint8_t* const begin = rows[i].data();
      const uint8_t* end = begin;
      for (; i < rows.size() && rows[i].data() >= end && static_cast<uint64_t>(rows[i].data() - end) < kGap; i++)
        end = rows[i].data() + rows[i].bytes();
      unload(begin, static_cast<uint64_t>(end - begin));
    }
    return;
  }
  std::lock_guard<std::mutex> lock(releasing_);
  for (const Rows& tensor : rows) {
    if (in_embedding(tensor)) continue;
    auto forget = [&](cqil_tensor& at) {
      if (at.data == tensor.tensor) at.data = nullptr;
    };
    forget(view_.output);
    for (cqil_layer& layer : layers_)
      for (const LayerSlot& entry : kLayerSlots) forget(layer.*entry.member);
    for (std::unique_ptr<uint8_t[]>& storage : owned_)
      if (storage.get() == tensor.tensor) storage.reset();
  }
}

}  // namespace cqil
