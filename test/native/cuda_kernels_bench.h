// One text of a random model for the kernel tests: buffers to fill and to poison, and what is compared.
#pragma once
#include "cuda_kernels_model.h"

namespace check {

constexpr float kPoison = NAN;

// ||found - expected|| <= tolerance ||expected||; NaN never passes.
inline void close(const FloatVector& found, const Doubles& expected, double tolerance, const std::string& what) {
  double error = 0, norm = 0;
  for (size_t i = 0; i < expected.size(); i++) {
    const double d = static_cast<double>(found[i]) - expected[i];
    error += d * d;
    norm += expected[i] * expected[i];
  }
  near(std::sqrt(error / (norm > 0 ? norm : 1.0)), 0, tolerance, what);
}

// A workspace of a random model, with a cache already filled up to the case's position, and the launches of one stage.
class Bench {
 public:
  // shared_bytes: that the device gives a block; 0: as one of three kinds of device does.
  Bench(const Case& c, int n_tokens, const cudaDeviceProp& on, Random& random, int64_t shared_bytes = 0)
      : c(c),
        random(random),
        model(c, random),
        n_tokens(n_tokens),
        name(std::string(c.name) + " x" + std::to_string(n_tokens)) {
    const int32_t context = c.position + n_tokens + 3;
    WorkspaceSize size = {};
    size.batch = n_tokens + 1, size.max_lanes = c.lanes, size.bypass = c.bypass,
    size.bypass_residual = c.bypass_residual;
    const cqil_shape shape = model.shape();
    that(shape_supported(shape), name + " shape");
    auto zeros = [&](int64_t bytes) {
      return model.keep(to_device(std::vector<uint8_t>(static_cast<size_t>(bytes), 0)));
    };
    cache = bind_cache(shape, context, c.kv_dtype, zeros(cache_bytes(shape, context, c.kv_dtype)));
    step.model = model.device;
    step.workspace = bind_workspace(shape, size, zeros(workspace_bytes(shape, size)));
    step.n_tokens = n_tokens, step.kv_dtype = c.kv_dtype;
    step.rows[c.kv_dtype == CQIL_F32   ? 0
              : c.kv_dtype == CQIL_F16 ? 1
                                       : 2] = {0, 1, attention_tiles(step.model, n_tokens)};
    write(s().inputs->rows, std::vector<DeviceRow>{{0, n_tokens, 0}});
    std::vector<int32_t> heads;  // the logits of all tokens are wanted
    for (int32_t i = 0; i < n_tokens; i++) heads.push_back(i);
    write(s().inputs->heads, heads);
    step.multiprocessors = on.multiProcessorCount;
    step.overlaps = n_tokens == 1 && on.major >= 9;
    // As on devices that give a block 99, 163 and 227 KB of shared memory.
    constexpr int64_t kSizes[] = {101376, 166912, 232448};
    const SharedPlan plan = shared_plan(shape, c.lanes, shared_bytes ? shared_bytes : kSizes[random.below(3)]);
    that(plan.stage_floats > 0, name + " fits shared memory");
    step.stage_floats = plan.stage_floats, step.ring_bytes = plan.ring_bytes;
    lanes = {0, 0, c.lanes};
    fill_cache();
    fill_rope();
    for (int32_t i = 0; i < n_tokens; i++) tokens.push_back({cache, c.position + i, 0, 0, 1});
    send_tokens();
  }

  const DeviceWorkspace& s() const { return step.workspace; }
  int tolerance_class() const { return n_tokens > 1 && c.dtype != CQIL_F32; }
  double tolerance() const { return tolerance_class() ? 5e-5 : 1e-5; }

  void send_tokens() { write(s().inputs->tokens, tokens); }
  int row_bytes() const { return cache_row_bytes(c.kv_dtype, s().head_stride); }

  // Random values in the first n of every row of a buffer of `rows` rows.
  FloatVector randomize(float* buffer, int64_t rows, int stride, int n, float range = 1.0f, int head = 0,
                        int head_stride = 0) {
    FloatVector values(static_cast<size_t>(rows * stride), 0.0f);
    for (int64_t r = 0; r < rows; r++)
      for (int i = 0; i < n; i++)
        if (head == 0 || i % head_stride < head) values[static_cast<size_t>(r * stride + i)] = range * random.uniform();
    write(buffer, values);
    return values;
  }
  void poison(float* buffer, int64_t rows, int stride, int n) {
    FloatVector values(static_cast<size_t>(rows * stride), 0.0f);
    for (int64_t r = 0; r < rows; r++) std::fill_n(values.begin() + r * stride, n, kPoison);
    write(buffer, values);
  }
  int64_t lane_rows() const { return static_cast<int64_t>(c.lanes) * s().size.batch; }
  const float* row(const FloatVector& buffer, int stride, int lane, int token) const {
    return buffer.data() + (static_cast<int64_t>(lane) * s().size.batch + token) * stride;
  }
  // Padding must be left zero, tokens nobody asked for must be left alone.
  void check_padding(const FloatVector& buffer, int stride, int n, const std::string& what) const {
    bool zero = true;
    for (size_t i = 0; i < buffer.size(); i++)
      if (static_cast<int>(i) % stride >= n) zero = zero && buffer[i] == 0.0f;
    that(zero, name + " " + what + " padding stays zero");
  }

  int64_t cache_row(int layer, int head, int position) const {
    return ((static_cast<int64_t>(layer) * c.n_kv_heads + head) * cache.context + position) * row_bytes();
  }
  Doubles cached(const std::vector<uint8_t>& bytes, int layer, int head, int position) const {
    return decode_row(bytes.data() + cache_row(layer, head, position), c.kv_dtype, s().head_stride);
  }
  std::vector<uint8_t> read_cache(const uint8_t* from) const { return read(from, cache_row(c.lanes, 0, 0)); }

  Case c;
  Random& random;
  RandomModel model;
  Step step = {};
  LaneRange lanes = {};
  DeviceCache cache = {};
  std::vector<DeviceToken> tokens;  // of the step
  int n_tokens;
  std::string name;
  FloatVector rope_cos, rope_sin;

 private:
  void fill_cache() {
    for (uint8_t* at : {cache.keys, cache.values}) {
      std::vector<uint8_t> bytes(static_cast<size_t>(cache_row(c.lanes, 0, 0)), 0);
      for (int layer = 0; layer < c.lanes; layer++)
        for (int head = 0; head < c.n_kv_heads; head++)
          for (int p = 0; p < c.position; p++) {
            FloatVector values = random.vector(static_cast<size_t>(s().head_stride), 0.9f);
            std::fill(values.begin() + c.head_dim, values.end(), 0.0f);
            encode_row(values, c.kv_dtype, bytes.data() + cache_row(layer, head, p));
          }
      write(at, bytes);
    }
  }
  void fill_rope() {
    const int half = c.head_dim / 2;
    for (int p = 0; p < cache.context; p++)
      for (int i = 0; i < half; i++) {
        const double angle = p * std::pow(10000.0, -static_cast<double>(i) / half);
        rope_cos.push_back(static_cast<float>(std::cos(angle) * 1.1));
        rope_sin.push_back(static_cast<float>(std::sin(angle) * 1.1));
      }
    step.workspace.rope_cos = model.keep(to_device(rope_cos));
    step.workspace.rope_sin = model.keep(to_device(rope_sin));
  }
};

}  // namespace check
