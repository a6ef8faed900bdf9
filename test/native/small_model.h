// A small random model for tests of the core.
#pragma once
#include <memory>

#include "core/dtype.h"
#include "core/model.h"
#include "cpu/cpu_backend.h"

namespace check {

// Quantized rows are whole blocks of 256; elsewhere the sizes are odd on purpose, unless they are to be round too.
inline cqil::WeightsSpec small_weights(const char* dtype = "F32", int32_t layers = 6, bool round = false,
                                       int32_t hidden_dim = 0) {
  cqil::WeightsSpec spec = {};
  round = round || dtype[0] == 'Q';
  cqil_shape& s = spec.shape;
  s.dim = round ? 256 : 72;
  s.hidden_dim = hidden_dim ? hidden_dim : round ? 512 : 123;
  s.head_dim = round ? 64 : 18;
  s.n_heads = 4;
  s.n_kv_heads = 2;
  s.n_layers = layers;
  s.vocab_size = 101;
  s.norm_eps = s.own_norm_eps = 1e-5f;
  s.rope_dim = s.head_dim;
  s.n_ropes = 1;
  s.rope_attention_factor = 1;
  for (int i = 0; i < s.head_dim / 2; i++) spec.rope_frequencies.push_back(std::pow(10000.0, -2.0 * i / s.head_dim));
  spec.random = true;
  spec.random_seed = 7;
  auto add = [&](const char* role, int32_t layer, int64_t rows, int64_t cols) {
    spec.tensors.push_back({role, layer, rows == 1 ? "F32" : dtype, rows, cols, 0, 0});
  };
  const int64_t q = s.n_heads * s.head_dim, kv = s.n_kv_heads * s.head_dim;
  add("token_embedding", -1, s.vocab_size, s.dim);
  add("output_norm", -1, 1, s.dim);
  for (int32_t i = 0; i < layers; i++) {
    add("attention_norm", i, 1, s.dim);
    add("wq", i, q, s.dim);
    add("wk", i, kv, s.dim);
    add("wv", i, kv, s.dim);
    add("wo", i, s.dim, q);
    add("bq", i, 1, q);
    add("q_norm", i, 1, s.head_dim);
    add("mlp_norm", i, 1, s.dim);
    add("w_gate", i, s.hidden_dim, s.dim);
    add("w_up", i, s.hidden_dim, s.dim);
    add("w_down", i, s.dim, s.hidden_dim);
  }
  return spec;
}

// Its threads share every layer unless alone_bytes is given.
inline std::shared_ptr<cqil::Model> small_model(int32_t threads, const char* dtype = "F32",
                                                cqil_activations activations = CQIL_ACTIVATIONS_F32,
                                                int64_t alone_bytes = 0) {
  return std::make_shared<cqil::Model>(small_weights(dtype), *cqil::cpu_backend(),
                                       cqil_model_options{threads, 0, activations, nullptr, alone_bytes, nullptr});
}

}  // namespace check
