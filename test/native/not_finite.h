// Models of which one weight is not finite, or gives keys and values that a KV cache does not hold, and whether a
// session tells of it.
#pragma once
#include <cmath>
#include <limits>

#include "check.h"
#include "core/half.h"
#include "core/session.h"
#include "model_file.h"
#include "some_text.h"

namespace check {

using namespace cqil;

constexpr float kInfinity = std::numeric_limits<float>::infinity(), kNan = std::numeric_limits<float>::quiet_NaN();

inline void write_float(uint8_t* to, float value) { std::memcpy(to, &value, sizeof value); }
inline void write_half(uint8_t* to, uint16_t half) { std::memcpy(to, &half, sizeof half); }

// A weight, or, where weights share a scale, the first scale.
inline void poke(const TensorSpec& tensor, uint8_t* data, float value) {
  switch (dtype_from_name(tensor.dtype)) {
    case CQIL_F32: return write_float(data, value);
    case CQIL_BF16: return write_half(data, bf16_from_float(value));
    case CQIL_Q6_K: return write_half(data + 208, f16_from_float(value));
    default: return write_half(data, f16_from_float(value));
  }
}

using Change = std::function<void(const TensorSpec&, uint8_t*)>;
inline Change poke_one(const char* role, int32_t layer, float value) {
  return [=](const TensorSpec& tensor, uint8_t* data) {
    if (tensor.role == role && tensor.layer == layer) poke(tensor, data, value);
  };
}

// With an output of its own, and biases of K and V.
inline WeightsSpec biased_weights(const char* dtype) {
  WeightsSpec spec = small_weights(dtype, 3);
  spec.tensors.push_back({"output", -1, dtype, spec.shape.vocab_size, spec.shape.dim, 0, 0});
  for (int32_t layer = 0; layer < 3; layer++)
    for (const char* role : {"bk", "bv"})
      spec.tensors.push_back({role, layer, "F32", 1, int64_t{spec.shape.n_kv_heads} * spec.shape.head_dim, 0, 0});
  return spec;
}

constexpr cqil_dtype kCaches[] = {CQIL_F32, CQIL_F16, CQIL_Q8_0};
constexpr cqil_output kOutputs[] = {CQIL_OUTPUT_LOGITS, CQIL_OUTPUT_SCORES, CQIL_OUTPUT_ALL_LOGITS,
                                    CQIL_OUTPUT_SHORTLIST};

inline void ask_for(Session& session, cqil_output output, size_t n, int32_t position) {
  ForwardRequest request;
  request.ids = some_ids(static_cast<int>(n));
  request.position = position;
  request.output = output;
  request.count = 7;
  request.has_next = true;
  request.next = 3;
  if (output == CQIL_OUTPUT_SHORTLIST) session.shortlist(request);
  else session.forward(request);
}

// Prompts, single tokens, and single tokens after a prompt whose logits nobody asked for.
inline void expect_told(const std::shared_ptr<Model>& model, cqil_dtype kv, const std::string& name,
                        Execution execution = Execution::kWide) {
  for (cqil_output output : kOutputs) {
    const std::string what = name + ", cache " + dtype_info(kv).name + ", output " + std::to_string(output);
    Session session(model, Plan{}, execution, 16, kv);
    throws("NOT_FINITE", [&] { ask_for(session, output, 9, 0); }, what + ", prompt");
    throws("NOT_FINITE", [&] { ask_for(session, output, 1, 0); }, what + ", token");
    ask_for(session, CQIL_OUTPUT_NONE, 9, 0);
    throws("NOT_FINITE", [&] { ask_for(session, output, 1, 9); }, what + ", token after a prompt");
  }
}

inline void expect_fine(const std::shared_ptr<Model>& model, cqil_dtype kv, const std::string& name,
                        Execution execution = Execution::kWide) {
  for (cqil_output output : kOutputs) {
    Session session(model, Plan{}, execution, 16, kv);
    try {
      ask_for(session, output, 9, 0);
      ask_for(session, output, 1, 9);
      that(true, name);
    } catch (const Error& error) {
      that(false, name + ", cache " + dtype_info(kv).name + ": " + error.what());
    }
  }
}

}  // namespace check
