// Merged adapters against W + scale B A in float64, for every format a weight may have.
#include "core/adapter.h"

#include <cmath>
#include <cstdio>
#include <cstring>

#include "check.h"
#include "core/half.h"
#include "core/row_codec.h"
#include "core/session.h"
#include "dequantize.h"
#include "small_model.h"

using namespace cqil;

namespace {

const char* const kFile = "adapter_test.bin";
constexpr int32_t kRank = 5;
constexpr float kScale = 0.75f;

struct Matrix {
  int64_t rows, cols;
  std::vector<double> values;
  double at(int64_t row, int64_t col) const { return values[static_cast<size_t>(row * cols + col)]; }
};

Matrix read(const cqil_tensor& t) {
  return {t.rows, t.cols, check::dequantize(static_cast<const uint8_t*>(t.data), t.dtype, t.rows * t.cols)};
}

// Pseudo-random values in [-1, 1) that every format of an adapter holds exactly.
double value(int64_t i) { return static_cast<double>(i * 7919 % 61 - 30) / 32; }

// A [kRank, cols] and B [rows, kRank] of one projection, appended to a file in making.
LoraPair append(std::vector<uint8_t>& file, const char* dtype, const char* role, int32_t layer, const cqil_tensor& w) {
  auto write = [&](int64_t count, int64_t from) {
    const AdapterMatrix matrix = {dtype, file.size()};
    for (int64_t i = 0; i < count; i++) {
      const float v = static_cast<float>(value(from + i));
      uint8_t bytes[4];
      size_t size = 4;
      std::memcpy(bytes, &v, 4);
      if (dtype[0] != 'F' || dtype[1] != '3') {
        const uint16_t half = dtype[0] == 'F' ? f16_from_float(v) : bf16_from_float(v);
        std::memcpy(bytes, &half, size = 2);
      }
      file.insert(file.end(), bytes, bytes + size);
    }
    return matrix;
  };
  const AdapterMatrix a = write(kRank * w.cols, layer), b = write(w.rows * kRank, 17 + layer);
  return {role, layer, kRank, kScale, a, b};
}

void save(const std::vector<uint8_t>& bytes) {
  std::FILE* file = std::fopen(kFile, "wb");
  std::fwrite(bytes.data(), 1, bytes.size(), file);
  std::fclose(file);
}

// Half of the distance between what dtype can hold around a value, in a block whose largest is largest.
double half_step(cqil_dtype dtype, double value, double largest) {
  switch (dtype) {
    case CQIL_F32: return std::fabs(value) * std::ldexp(1, -24);
    case CQIL_F16: return std::max(std::fabs(value) * std::ldexp(1, -11), std::ldexp(1, -25));
    case CQIL_BF16: return std::fabs(value) * std::ldexp(1, -8);
    default: return largest / 127 * (1 + std::ldexp(1, -9)) / 2;
  }
}

void expect_merged(const Matrix& base, const cqil_tensor& merged, int32_t layer, bool interleaved, int64_t head_dim,
                   const std::string& what) {
  const Matrix result = read(merged);
  double worst = 0;  // in half steps
  double moved = 0;
  for (int64_t row = 0; row < base.rows; row++) {
    // Written once more, as a search: the row of B whose rotated pair would be stored here.
    int64_t b_row = row;
    if (interleaved)
      for (int64_t i = 0; i < head_dim; i++)
        if ((i < head_dim / 2 ? 2 * i : 2 * (i - head_dim / 2) + 1) == row % head_dim)
          b_row = row / head_dim * head_dim + i;
    std::vector<double> expected(static_cast<size_t>(base.cols));
    std::vector<double> largest(static_cast<size_t>(base.cols / 32 + 1));
    for (int64_t col = 0; col < base.cols; col++) {
      double sum = 0;
      for (int64_t k = 0; k < kRank; k++)
        sum += value(17 + layer + b_row * kRank + k) * value(layer + k * base.cols + col);
      expected[static_cast<size_t>(col)] = base.at(row, col) + kScale * sum;
      double& block = largest[static_cast<size_t>(col / 32)];
      block = std::max(block, std::fabs(expected[static_cast<size_t>(col)]));
      moved = std::max(moved, std::fabs(kScale * sum));
    }
    for (int64_t col = 0; col < base.cols; col++) {
      const double truth = expected[static_cast<size_t>(col)];
      // Float32 sums of kRank + 1 products of size 1 before rounding: a few units of 2^-24.
      const double bound =
          half_step(merged.dtype, truth, largest[static_cast<size_t>(col / 32)]) + (kRank + 2) * std::ldexp(1, -23);
      worst = std::max(worst, std::fabs(result.at(row, col) - truth) / bound);
    }
  }
  CHECK(moved > 0.5, what + ": the adapter changes the weights");
  CHECK(worst <= 1, what + ": off by " + std::to_string(worst) + " of the bound");
}

void test_merge(const char* dtype, const char* adapter_dtype, bool interleaved) {
  const std::string what =
      std::string(dtype) + " with an adapter in " + adapter_dtype + (interleaved ? ", interleaved" : "");
  WeightsSpec spec = check::small_weights(dtype, 3);
  spec.shape.rope_interleaved = interleaved;
  Weights base(std::move(spec));
  const cqil_layer* layers = base.view().layers;
  std::vector<uint8_t> bytes(3);  // so that nothing in the file is aligned
  AdapterSpec adapter;
  adapter.file = kFile;
  const char* const roles[] = {"wq", "wk", "wv", "wo", "w_gate", "w_up", "w_down"};
  for (const char* role : roles)
    adapter.pairs.push_back(append(bytes, adapter_dtype, role, 1, layers[1].*layer_slot(role)));
  adapter.pairs.push_back(append(bytes, adapter_dtype, "w_down", 2, layers[2].w_down));
  save(bytes);

  const Matrix before = read(layers[1].wq);
  const MergedWeights merged(base, adapter, 3);
  const cqil_layer* with = merged.view().layers;
  uint64_t size = 0;
  for (const LoraPair& pair : adapter.pairs) {
    const cqil_tensor& from = layers[pair.layer].*layer_slot(pair.role);
    const cqil_tensor& to = with[pair.layer].*layer_slot(pair.role);
    const bool turned = interleaved && (pair.role == "wq" || pair.role == "wk");
    expect_merged(read(from), to, pair.layer, turned, base.view().shape.head_dim, what + ", " + pair.role);
    CHECK(to.dtype == merged_dtype(from.dtype) && to.rows == from.rows && to.cols == from.cols,
          what + ": its own format");
    size += static_cast<uint64_t>(to.rows * row_bytes(to.dtype, to.cols));
  }
  CHECK(merged.bytes() == size, what + ": bytes");
  CHECK(with[0].wq.data == layers[0].wq.data && with[2].w_up.data == layers[2].w_up.data &&
            with[1].mlp_norm.data == layers[1].mlp_norm.data && merged.view().output.data == base.view().output.data,
        what + ": what is not touched stays in place");
  CHECK(read(layers[1].wq).values == before.values, what + ": the base is as it was");

  const MergedWeights alone(base, adapter, 1);
  const cqil_tensor &one = alone.view().layers[1].w_down, &three = with[1].w_down;
  CHECK(std::memcmp(one.data, three.data, static_cast<size_t>(one.rows * row_bytes(one.dtype, one.cols))) == 0,
        what + ": the same bits with any number of threads");
}

void test_codec() {
  // What an unpacked row holds can be packed again without a change, in the formats that are packed.
  for (const char* dtype : {"F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_K", "Q5_K", "Q6_K"}) {
    const Weights weights(check::small_weights(dtype, 1));
    const cqil_tensor& w = weights.view().layers[0].w_up;
    const Matrix truth = read(w);
    std::vector<float> row(static_cast<size_t>(w.cols));
    unpack_row(w.dtype, static_cast<const uint8_t*>(w.data), w.cols, row.data());
    double worst = 0;
    for (int64_t i = 0; i < w.cols; i++)
      worst = std::max(worst, std::fabs(row[static_cast<size_t>(i)] - truth.at(0, i)));
    CHECK(worst <= 1e-7, std::string(dtype) + " unpacks to its definition");
    if (merged_dtype(w.dtype) != w.dtype || w.dtype == CQIL_Q8_0) continue;
    std::vector<uint8_t> packed(static_cast<size_t>(row_bytes(w.dtype, w.cols)));
    CHECK(
        pack_row(w.dtype, row.data(), w.cols, packed.data()) && std::memcmp(packed.data(), w.data, packed.size()) == 0,
        std::string(dtype) + " packs to the same bits");
  }
  float values[32] = {1, -0.5f, 127, 3e38f};
  uint8_t row[128];
  CHECK(pack_row(CQIL_F32, values, 32, row) && pack_row(CQIL_BF16, values, 32, row), "large values that fit");
  CHECK(!pack_row(CQIL_F16, values, 32, row) && !pack_row(CQIL_Q8_0, values, 32, row), "values beyond the format");
  values[3] = NAN;
  for (cqil_dtype dtype : {CQIL_F32, CQIL_F16, CQIL_BF16, CQIL_Q8_0})
    CHECK(!pack_row(dtype, values, 32, row), "not a number");
}

void test_refusals() {
  Weights base(check::small_weights("F16", 2));
  std::vector<uint8_t> bytes;
  AdapterSpec sound;
  sound.file = kFile;
  sound.pairs.push_back(append(bytes, "F32", "w_down", 0, base.view().layers[0].w_down));
  save(bytes);
  auto refuse = [&](const char* code, const std::function<void(AdapterSpec&)>& spoil, const char* what) {
    AdapterSpec spec = sound;
    spoil(spec);
    check::throws(code, [&] { MergedWeights merged(base, spec, 2); }, what);
  };
  CHECK(MergedWeights(base, sound, 2).bytes() > 0, "the adapter that is spoilt below is sound");
  refuse("FILE_NOT_FOUND", [](AdapterSpec& s) { s.file = "no/such/file"; }, "no file");
  refuse("INVALID_CHECKPOINT", [](AdapterSpec& s) { s.pairs[0].layer = 2; }, "no such layer");
  refuse("INVALID_CHECKPOINT", [](AdapterSpec& s) { s.pairs[0].layer = -1; }, "negative layer");
  refuse("INVALID_CHECKPOINT", [](AdapterSpec& s) { s.pairs[0].role = "lm_head"; }, "no such role");
  refuse("INVALID_CHECKPOINT", [](AdapterSpec& s) { s.pairs[0].role = "mlp_norm"; }, "a vector");
  refuse("INVALID_CHECKPOINT", [](AdapterSpec& s) { s.pairs[0].role = "bk"; }, "a tensor this model has not");
  refuse("INVALID_CHECKPOINT", [](AdapterSpec& s) { s.pairs.push_back(s.pairs[0]); }, "twice");
  refuse("INVALID_CHECKPOINT", [](AdapterSpec& s) { s.pairs[0].rank = 0; }, "rank 0");
  refuse("INVALID_CHECKPOINT", [](AdapterSpec& s) { s.pairs[0].rank = 1 << 30; }, "huge rank");
  refuse("INVALID_CHECKPOINT", [](AdapterSpec& s) { s.pairs[0].rank++; }, "a file too short for the rank");
  refuse("INVALID_CHECKPOINT", [](AdapterSpec& s) { s.pairs[0].a.offset = ~uint64_t{0}; }, "an offset that overflows");
  refuse("INVALID_CHECKPOINT", [](AdapterSpec& s) { s.pairs[0].b.dtype = "Q8_0"; }, "an adapter that is quantized");
  refuse("INVALID_CHECKPOINT", [](AdapterSpec& s) { s.pairs[0].scale = 1e6f; }, "values beyond F16");
}

// A model with an adapter computes on its base's threads, and the base goes on as before.
void test_model() {
  auto base = check::small_model(3, "BF16");
  std::vector<uint8_t> bytes;
  AdapterSpec adapter;
  adapter.file = kFile;
  for (int32_t layer : {1, 2})
    adapter.pairs.push_back(append(bytes, "BF16", "w_down", layer, base->weights().view().layers[layer].w_down));
  save(bytes);
  auto logits = [](const std::shared_ptr<Model>& model, Execution execution) {
    Plan plan;
    plan.groups = {{1, 2}};
    Session session(model, plan, execution, 8);
    ForwardRequest request;
    request.ids = {5, 17, 80};
    request.output = CQIL_OUTPUT_LOGITS;
    return session.forward(request);
  };
  const std::vector<float> before = logits(base, Execution::kWide);
  auto adapted = std::make_shared<Model>(base, adapter);
  const std::vector<float> with = logits(adapted, Execution::kWide);
  CHECK(with != before, "the adapter changes what is computed");
  CHECK(logits(base, Execution::kLanes) == before, "the base computes as before");
  Model* shared = base.get();
  base.reset();
  CHECK(&adapted->weights() == &shared->weights() && logits(adapted, Execution::kLanes) == with,
        "the base lives as long as the variant");
}

}  // namespace

int main() {
  test_codec();
  for (const char* dtype : {"F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_K", "Q5_K", "Q6_K"})
    for (bool interleaved : {false, true}) test_merge(dtype, "F32", interleaved);
  test_merge("BF16", "F16", false);
  test_merge("F16", "BF16", true);
  test_refusals();
  test_model();
  std::remove(kFile);
  return check::report("adapter");
}
