#include "weights.h"

#include <algorithm>
#include <cstring>

#include "../core/dtype.h"
#include "device.h"
#include "pack.h"

namespace cqil::cuda {
namespace {

// Two of them: one is filled while the other is copied. Large enough that a copy outweighs its start.
constexpr int64_t kStagingBytes = 16 << 20;
constexpr size_t kVectorAlignment = 4;  // floats: the kernels load vectors by 16 bytes

// What every model must have room for besides its weights.
constexpr int32_t kShortContext = 256;

const cqil_tensor cqil_layer::* const kMatrices[] = {&cqil_layer::wq,    &cqil_layer::wk,     &cqil_layer::wv,
                                                     &cqil_layer::wo,    &cqil_layer::w_gate, &cqil_layer::w_up,
                                                     &cqil_layer::w_down};
const cqil_tensor cqil_layer::* const kVectors[] = {
    &cqil_layer::attention_norm, &cqil_layer::bq,     &cqil_layer::bk,      &cqil_layer::bv, &cqil_layer::bo,
    &cqil_layer::q_norm,         &cqil_layer::k_norm, &cqil_layer::mlp_norm};

size_t vector_floats(const cqil_tensor& vector) {
  const size_t n = vector.data ? static_cast<size_t>(vector.cols) : 0;
  return (n + kVectorAlignment - 1) / kVectorAlignment * kVectorAlignment;
}

size_t all_vector_floats(const cqil_weights& host) {
  size_t total = vector_floats(host.output_norm);
  for (int32_t i = 0; i < host.shape.n_layers; i++)
    for (const auto member : kVectors) total += vector_floats(host.layers[i].*member);
  return total;
}

// What of a model's formula the kernels do not compute, in words; null where they compute all of it.
const char* not_computed(const cqil_weights& host) {
  const cqil_shape& shape = host.shape;
  const cqil_formula& formula = shape.formula;
  if (formula.activation != CQIL_SILU) return "another activation than SiLU";
  if (formula.attention_cap != 0 || formula.logit_cap != 0) return "capped scores or logits";
  if (shape.rope_dim != shape.head_dim) return "heads that are rotated in part";
  if (shape.n_ropes != 1) return "several rotary embeddings";
  for (int32_t i = 0; i < shape.n_layers; i++) {
    const cqil_layer& layer = host.layers[i];
    if (layer.attention_post_norm.data || layer.mlp_post_norm.data) return "norms after its blocks";
    if (layer.rope != 0) return "layers without rotary embedding";
    if (layer.window != host.layers[0].window) return "attention windows that differ from layer to layer";
    if ((layer.q_norm.data || layer.k_norm.data) && shape.own_norm_eps != shape.norm_eps)
      return "norms of heads beside a multiplier of blocks";
  }
  return nullptr;
}

}  // namespace

struct Weights::Upload {
  Upload() : stream(make_stream()) {
    for (int i = 0; i < 2; i++) {
      staging[i] = pinned_array<uint8_t>(kStagingBytes);
      copied[i] = make_event();
    }
  }

  // Copies in flight read the staging buffers.
  ~Upload() { cudaStreamSynchronize(stream.get()); }

  // The staging buffer whose last copy is done.
  uint8_t* next() {
    turn = 1 - turn;
    check(cudaEventSynchronize(copied[turn].get()), "weights were copied to it");
    return staging[turn].get();
  }
  void copy(void* to, const void* from, int64_t bytes) {
    check(cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyHostToDevice, stream.get()),
          "weights were copied to it");
  }
  void filled() { check(cudaEventRecord(copied[turn].get(), stream.get()), "weights were copied to it"); }

  PinnedArray<uint8_t> staging[2];
  Event copied[2];
  Stream stream;
  int turn = 0;
  float* vectors = nullptr;  // the next free place
};

Weights::Weights(const cqil_weights& host, const Weights* base) : base_(base) {
  const cqil_shape& shape = host.shape;
  if (!shape_supported(shape))
    throw Failure(CQIL_UNSUPPORTED_MODEL, "The CUDA backend takes an even head_dim of 2 to 256, and this model has " +
                                              std::to_string(shape.head_dim) + ".");
  if (const char* what = not_computed(host))
    throw Failure(CQIL_UNSUPPORTED_MODEL, std::string("This model has ") + what +
                                              ", which the CUDA backend does not compute; expected backend cpu.");
  check_memory(host);
  Upload upload;
  vectors_ = device_array<float>(all_vector_floats(host));
  upload.vectors = vectors_.get();

  device_ = device_model(shape);
  device_.sliding_window = host.layers[0].window;
  device_.format = host.layers[0].wq.dtype;
  device_.gate_up_runs = 1;
  device_.token_embedding = place(host.token_embedding, upload);
  device_.output = place(host.output, upload);
  device_.output_norm = place_vector(host.output_norm, upload);

  for (int32_t i = 0; i < shape.n_layers; i++) {
    const cqil_layer& from = host.layers[i];
    DeviceLayer to = {};
    to.attention_norm = place_vector(from.attention_norm, upload);
    to.bq = place_vector(from.bq, upload);
    to.bk = place_vector(from.bk, upload);
    to.bv = place_vector(from.bv, upload);
    to.bo = place_vector(from.bo, upload);
    to.q_norm = place_vector(from.q_norm, upload);
    to.k_norm = place_vector(from.k_norm, upload);
    to.mlp_norm = place_vector(from.mlp_norm, upload);
    to.wq = place(from.wq, upload);
    to.wk = place(from.wk, upload);
    to.wv = place(from.wv, upload);
    to.wo = place(from.wo, upload);
    to.w_gate = place(from.w_gate, upload);
    to.w_up = place(from.w_up, upload);
    to.w_down = place(from.w_down, upload);
    host_layers_.push_back(to);
    if (to.q_norm || to.k_norm) device_.head_norms = 1;
    if (to.w_gate.dtype != to.w_up.dtype) device_.gate_up_runs = 2;
    for (const auto member : kMatrices)
      if ((from.*member).dtype != device_.format) device_.format = -1;
  }
  layers_ = device_array<DeviceLayer>(host_layers_.size());
  upload.copy(layers_.get(), host_layers_.data(), static_cast<int64_t>(host_layers_.size() * sizeof(DeviceLayer)));
  check(cudaStreamSynchronize(upload.stream.get()), "weights were copied to it");
  device_.layers = layers_.get();
}

void Weights::check_memory(const cqil_weights& host) const {
  int64_t needed = static_cast<int64_t>(all_vector_floats(host) * sizeof(float) +
                                        static_cast<size_t>(host.shape.n_layers) * sizeof(DeviceLayer));
  std::map<const void*, bool> counted;
  auto count = [&](const cqil_tensor& tensor) {
    if (!counted.emplace(tensor.data, true).second || (base_ && base_->find(tensor.data))) return;
    needed += packed_layout(tensor.dtype, tensor.rows, tensor.cols).bytes;
  };
  count(host.token_embedding);
  count(host.output);
  for (int32_t i = 0; i < host.shape.n_layers; i++)
    for (const auto member : kMatrices) count(host.layers[i].*member);

  const WorkspaceSize size = {CQIL_MAX_BATCH, 1, 0, 0};
  const auto weights = static_cast<uint64_t>(needed);
  const auto beside =
      static_cast<uint64_t>(cache_bytes(host.shape, kShortContext, CQIL_F32) + workspace_bytes(host.shape, size));
  const uint64_t free = free_bytes();
  if (weights + beside > free)
    throw Failure(CQIL_OUT_OF_MEMORY, "The weights take " + megabytes(weights) + " on the GPU and a session of " +
                                          std::to_string(kShortContext) + " tokens " + megabytes(beside) + ", and " +
                                          megabytes(free) + " are free; expected a smaller model or backend cpu.");
}

const Weights::Placed* Weights::find(const void* host) const {
  const auto found = placed_.find(host);
  if (found != placed_.end()) return &found->second;
  return base_ ? base_->find(host) : nullptr;
}

// A tied output is the embedding's own data, and so is found.
Matrix Weights::place(const cqil_tensor& tensor, Upload& upload) {
  if (const Placed* known = find(tensor.data)) return known->matrix;
  const PackedLayout layout = packed_layout(tensor.dtype, tensor.rows, tensor.cols);
  Placed placed;
  placed.memory = device_array<uint8_t>(static_cast<size_t>(layout.bytes));
  uint8_t* const data = placed.memory.get();
  uint8_t* const scales = data + layout.scales_offset;
  placed.matrix = {data,
                   layout.scale_row_bytes ? reinterpret_cast<const uint16_t*>(scales) : nullptr,
                   layout.row_bytes,
                   static_cast<int32_t>(tensor.rows),
                   static_cast<int32_t>(tensor.cols),
                   tensor.dtype};

  const auto* rows = static_cast<const uint8_t*>(tensor.data);
  const int64_t from_bytes = row_bytes(tensor.dtype, tensor.cols);
  const int64_t staged_row = layout.row_bytes + layout.scale_row_bytes;
  const int64_t rows_at_once = std::max<int64_t>(1, kStagingBytes / staged_row);
  if (staged_row > kStagingBytes)
    throw Failure(CQIL_UNSUPPORTED_MODEL, "A row of a matrix takes " + megabytes(static_cast<uint64_t>(staged_row)) +
                                              ", expected at most " + megabytes(kStagingBytes) + ".");
  for (int64_t row = 0; row < tensor.rows; row += rows_at_once) {
    const int64_t n = std::min(rows_at_once, tensor.rows - row);
    uint8_t* const staged = upload.next();
    uint8_t* const staged_scales = staged + n * layout.row_bytes;
    pack_rows(tensor.dtype, tensor.cols, rows + row * from_bytes, n, staged, staged_scales);
    upload.copy(data + row * layout.row_bytes, staged, n * layout.row_bytes);
    if (layout.scale_row_bytes)
      upload.copy(scales + row * layout.scale_row_bytes, staged_scales, n * layout.scale_row_bytes);
    upload.filled();
  }
  return placed_.emplace(tensor.data, std::move(placed)).first->second.matrix;
}

const float* Weights::place_vector(const cqil_tensor& tensor, Upload& upload) {
  if (!tensor.data) return nullptr;
  float* const at = upload.vectors;
  upload.vectors += vector_floats(tensor);
  upload.copy(at, tensor.data, tensor.cols * static_cast<int64_t>(sizeof(float)));
  return at;
}

}  // namespace cqil::cuda
