// Random weights of a shape for the GPU benchmark, as large as that of a model, in little memory of the host.
#pragma once
#include <sys/mman.h>
#include <unistd.h>

#include <cmath>
#include <new>
#include <vector>

#include "core/dtype.h"
#include "core/random_weights.h"

namespace cqil::bench {

struct Shape {
  const char* name;
  cqil_dtype dtype;
  int32_t layers, dim, hidden, heads, kv_heads, vocab;
  bool tied;
  int32_t first_grouped, end_grouped;
};

// Random weights of one layer, mapped once per layer: every layer has addresses of its own on the host, and so its own
// memory on the device, but one layer's worth of host memory is filled.
class LayerFile {
 public:
  explicit LayerFile(size_t bytes) : bytes_(bytes), file_(memfd_create("layer", 0)) {
    if (file_ < 0 || ftruncate(file_, static_cast<off_t>(bytes)) != 0) throw std::bad_alloc();
  }
  ~LayerFile() {
    for (void* map : maps_) munmap(map, bytes_);
    close(file_);
  }
  uint8_t* map() {
    void* map = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, file_, 0);
    if (map == MAP_FAILED) throw std::bad_alloc();
    maps_.push_back(map);
    return static_cast<uint8_t*>(map);
  }

 private:
  size_t bytes_;
  int file_;
  std::vector<void*> maps_;
};

class RandomModel {
 public:
  explicit RandomModel(const Shape& shape) : layer_file_(layer_bytes(shape)) {
    const int32_t head_dim = shape.dim / shape.heads;
    for (int32_t i = 0; i < head_dim / 2; i++) frequencies_.push_back(std::pow(10000.0, -2.0 * i / head_dim));
    cqil_shape& of = weights.shape;
    of.dim = shape.dim, of.hidden_dim = shape.hidden, of.head_dim = of.rope_dim = head_dim;
    of.n_heads = shape.heads, of.n_kv_heads = shape.kv_heads, of.n_layers = shape.layers, of.vocab_size = shape.vocab;
    of.norm_eps = of.own_norm_eps = 1e-5f;
    of.n_ropes = 1, of.rope_frequencies = frequencies_.data(), of.rope_attention_factor = 1;
    weights.token_embedding = own(shape.dtype, shape.vocab, shape.dim);
    weights.output = shape.tied ? weights.token_embedding : own(shape.dtype, shape.vocab, shape.dim);
    norm_ = own(CQIL_F32, 1, shape.dim);
    weights.output_norm = norm_;
    for (int32_t i = 0; i < shape.layers; i++) layers_.push_back(layer(shape, i == 0));
    weights.layers = layers_.data();
  }

  // Read for one token after `positions` others, with a cache of f16: every matrix but the embedding, of which it is
  // one row.
  static double bytes_per_token(const Shape& shape, int32_t positions) {
    const double kv = 2.0 * shape.layers * shape.kv_heads * (shape.dim / shape.heads) * sizeof(uint16_t) * positions;
    return static_cast<double>(shape.layers) * static_cast<double>(layer_bytes(shape)) +
           static_cast<double>(shape.vocab * row_bytes(shape.dtype, shape.dim)) + kv;
  }

  cqil_weights weights = {};

 private:
  static size_t bytes_of(cqil_dtype dtype, int64_t rows, int64_t cols) {
    return static_cast<size_t>(rows * row_bytes(dtype, cols));
  }
  static size_t layer_bytes(const Shape& s) {
    const int64_t kv = static_cast<int64_t>(s.kv_heads) * (s.dim / s.heads);
    return 2 * bytes_of(s.dtype, s.dim, s.dim) + 2 * bytes_of(s.dtype, kv, s.dim) +
           2 * bytes_of(s.dtype, s.hidden, s.dim) + bytes_of(s.dtype, s.dim, s.hidden);
  }

  cqil_tensor own(cqil_dtype dtype, int64_t rows, int64_t cols) {
    owned_.emplace_back(bytes_of(dtype, rows, cols));
    fill_random(owned_.back().data(), dtype, rows, cols, owned_.size());
    return {owned_.back().data(), dtype, rows, cols};
  }

  cqil_layer layer(const Shape& s, bool fill) {
    uint8_t* at = layer_file_.map();
    auto matrix = [&](int64_t rows, int64_t cols) {
      if (fill) fill_random(at, s.dtype, rows, cols, static_cast<uint64_t>(rows * 31 + cols));
      const cqil_tensor tensor = {at, s.dtype, rows, cols};
      at += bytes_of(s.dtype, rows, cols);
      return tensor;
    };
    const int64_t kv = static_cast<int64_t>(s.kv_heads) * (s.dim / s.heads);
    cqil_layer layer = {};
    layer.attention_norm = layer.mlp_norm = norm_;
    layer.wq = matrix(s.dim, s.dim);
    layer.wk = matrix(kv, s.dim);
    layer.wv = matrix(kv, s.dim);
    layer.wo = matrix(s.dim, s.dim);
    layer.w_gate = matrix(s.hidden, s.dim);
    layer.w_up = matrix(s.hidden, s.dim);
    layer.w_down = matrix(s.dim, s.hidden);
    return layer;
  }

  LayerFile layer_file_;
  std::vector<double> frequencies_;
  std::vector<std::vector<uint8_t>> owned_;
  cqil_tensor norm_ = {};
  std::vector<cqil_layer> layers_;
};

}  // namespace cqil::bench
