// Weights: what does not fit the shape or the file is refused by name.
#include "core/weights.h"

#include <cstdio>

#include "check.h"
#include "core/half.h"
#include "small_model.h"

using namespace cqil;

namespace {

void refuse(const char* code, const std::function<void(WeightsSpec&)>& spoil, const char* what) {
  check::throws(
      code,
      [&] {
        WeightsSpec spec = check::small_weights();
        spoil(spec);
        Weights weights(std::move(spec));
      },
      what);
}

void test_half_conversions() {
  bool round_trip = true;
  for (uint32_t h = 0; h < 0x10000; h++) {
    const float value = float_from_f16(static_cast<uint16_t>(h));
    if (std::isnan(value)) continue;
    round_trip = round_trip && f16_from_float(value) == h;
  }
  CHECK(round_trip, "every finite half survives float32");
  CHECK(f16_from_float(65520.0f) == 0x7c00 && f16_from_float(65519.0f) == 0x7bff, "halves overflow to infinity");
  CHECK(f16_from_float(1.00048828125f) == 0x3c00 && f16_from_float(1.00146484375f) == 0x3c02, "halves round to even");
  CHECK(bf16_from_float(1.00390625f) == 0x3f80 && bf16_from_float(1.01171875f) == 0x3f82, "bfloat16 rounds to even");
}

void test_truncated_file() {
  const char* path = "weights_test.bin";
  std::FILE* file = std::fopen(path, "wb");
  const std::vector<float> ones(72, 1.0f);
  std::fwrite(ones.data(), sizeof(float), ones.size(), file);
  std::fclose(file);
  auto spec = [&](uint64_t offset) {
    WeightsSpec s = check::small_weights();
    s.random = false;
    s.files = {path};
    s.tensors = {{"output_norm", -1, "F32", 1, 72, 0, offset}};
    return s;
  };
  check::throws("INVALID_CHECKPOINT", [&] { Weights w(spec(4)); }, "one value past the end");
  check::throws("INVALID_CHECKPOINT", [&] { Weights w(spec(~uint64_t{0})); }, "offset that overflows");
  check::throws(
      "FILE_NOT_FOUND",
      [&] {
        auto s = spec(0);
        s.files = {"no/such/file"};
        Weights w(std::move(s));
      },
      "no file");
  std::remove(path);
}

}  // namespace

int main() {
  Weights sound(check::small_weights());
  CHECK(sound.bytes() > 0 && sound.view().output.data == sound.view().token_embedding.data, "tied output");
  refuse("INVALID_CHECKPOINT", [](WeightsSpec& s) { s.tensors.pop_back(); }, "a tensor is missing");
  refuse("INVALID_CHECKPOINT", [](WeightsSpec& s) { s.tensors.push_back(s.tensors[0]); }, "a tensor twice");
  refuse("INVALID_CHECKPOINT", [](WeightsSpec& s) { s.tensors[3].rows++; }, "wrong rows");
  refuse("INVALID_CHECKPOINT", [](WeightsSpec& s) { s.tensors[0].dtype = "Q8_0"; }, "rows that are no whole blocks");
  refuse("INVALID_CHECKPOINT", [](WeightsSpec& s) { s.tensors[3].layer = 6; }, "no such layer");
  refuse("INVALID_CHECKPOINT", [](WeightsSpec& s) { s.tensors[3].role = "wx"; }, "no such role");
  refuse("UNSUPPORTED_MODEL", [](WeightsSpec& s) { s.tensors[0].dtype = "IQ1_S"; }, "unknown dtype");
  refuse("INVALID_CHECKPOINT", [](WeightsSpec& s) { s.shape.head_dim = 17; }, "odd head_dim");
  refuse("INVALID_CHECKPOINT", [](WeightsSpec& s) { s.shape.n_kv_heads = 3; }, "heads that do not divide");
  refuse("INVALID_CHECKPOINT", [](WeightsSpec& s) { s.shape.n_layers = -1; }, "negative layers");
  refuse("INVALID_CHECKPOINT", [](WeightsSpec& s) { s.rope_frequencies.pop_back(); }, "too few frequencies");
  test_half_conversions();
  test_truncated_file();
  return check::report("weights");
}
