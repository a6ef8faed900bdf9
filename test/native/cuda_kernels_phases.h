// Each phase by itself, on random inputs against float64.
#pragma once
#include "cuda_kernels_bench.h"

namespace check {

inline void test_embed(Bench& b) {
  for (DeviceToken& token : b.tokens) token.id = b.random.below(b.c.vocab_size);
  b.tokens[0].id = b.c.vocab_size - 1;
  b.send_tokens();
  b.poison(b.s().x, b.n_tokens, b.s().dim_stride, b.c.dim);
  device_ok(launch_embed(b.step, nullptr), "embed");
  const FloatVector x = read(b.s().x, static_cast<int64_t>(b.n_tokens) * b.s().dim_stride);
  for (int t = 0; t < b.n_tokens; t++) {
    const auto first =
        b.model.embedding.weights.begin() + static_cast<int64_t>(b.tokens[static_cast<size_t>(t)].id) * b.c.dim;
    close(FloatVector(x.begin() + t * b.s().dim_stride, x.end()), Doubles(first, first + b.c.dim), 1e-6,
          b.name + " embed");
  }
  b.check_padding(x, b.s().dim_stride, b.c.dim, "embed");
}

// A head of Q or K after bias, norm and RoPE.
inline Doubles finished_head(const Bench& b, Doubles head, const FloatVector& norm, int position) {
  const int half = b.c.head_dim / 2;
  if (!norm.empty()) head = rms_norm(head, norm, 1e-5);
  for (int i = 0; i < half; i++) {
    const size_t first = static_cast<size_t>(b.c.interleaved ? 2 * i : i),
                 second = static_cast<size_t>(b.c.interleaved ? 2 * i + 1 : i + half);
    const size_t at = static_cast<size_t>(position * half + i);
    const double cos = b.rope_cos[at], sin = b.rope_sin[at], a = head[first], c = head[second];
    head[first] = a * cos - c * sin;
    head[second] = a * sin + c * cos;
  }
  return head;
}
inline Doubles head_slice(const Doubles& all, const FloatVector& bias, int head, int head_dim) {
  Doubles one(all.begin() + head * head_dim, all.begin() + (head + 1) * head_dim);
  for (size_t i = 0; i < one.size() && !bias.empty(); i++)
    one[i] += static_cast<double>(bias[static_cast<size_t>(head * head_dim) + i]);
  return one;
}

// What rounding to the cache's format adds, in norm.
inline double cache_tolerance(cqil_dtype dtype) {
  switch (dtype) {
    case CQIL_F16: return 1e-3;
    case CQIL_Q8_0: return 1.5e-2;
    default: return 0;
  }
}

inline void test_qkv(Bench& b) {
  const DeviceWorkspace& s = b.s();
  const FloatVector x = b.randomize(s.x, b.n_tokens, s.dim_stride, b.c.dim, 3.0f);
  FloatVector poison(static_cast<size_t>(b.lane_rows() * s.query_stride), 0.0f);
  for (size_t i = 0; i < poison.size(); i++)
    if (static_cast<int>(i) % s.head_stride < b.c.head_dim) poison[i] = kPoison;
  write(s.query, poison);
  device_ok(launch_qkv(b.step, b.lanes, nullptr), "qkv");
  const FloatVector query = read(s.query, b.lane_rows() * s.query_stride);
  const std::vector<uint8_t> keys = b.read_cache(b.cache.keys), values = b.read_cache(b.cache.values);
  for (int lane = 0; lane < b.c.lanes; lane++)
    for (int t = 0; t < b.n_tokens; t++) {
      const HostLayer& l = b.model.layers[static_cast<size_t>(lane)];
      const Doubles h = rms_norm(widen(x.data() + t * s.dim_stride, b.c.dim), l.attention_norm, 1e-5);
      const Doubles q = multiply(l.wq, h), k = multiply(l.wk, h), v = multiply(l.wv, h);
      const int position = b.c.position + t;
      for (int head = 0; head < b.c.n_heads; head++) {
        const float* found = b.row(query, s.query_stride, lane, t) + head * s.head_stride;
        close(FloatVector(found, found + s.head_stride),
              finished_head(b, head_slice(q, l.bq, head, b.c.head_dim), l.q_norm, position), b.tolerance(),
              b.name + " query");
        bool zero = true;
        for (int i = b.c.head_dim; i < s.head_stride; i++) zero = zero && found[i] == 0.0f;
        that(zero, b.name + " query padding");
      }
      for (int head = 0; head < b.c.n_kv_heads; head++) {
        const Doubles found_k = b.cached(keys, lane, head, position), found_v = b.cached(values, lane, head, position);
        const double tolerance = b.tolerance() + cache_tolerance(b.c.kv_dtype);
        close(FloatVector(found_k.begin(), found_k.end()),
              finished_head(b, head_slice(k, l.bk, head, b.c.head_dim), l.k_norm, position), tolerance,
              b.name + " key");
        close(FloatVector(found_v.begin(), found_v.end()), head_slice(v, l.bv, head, b.c.head_dim), tolerance,
              b.name + " value");
      }
    }
}

inline void test_attention(Bench& b) {
  const DeviceWorkspace& s = b.s();
  const FloatVector query =
      b.randomize(s.query, b.lane_rows(), s.query_stride, s.query_stride, 2.0f, b.c.head_dim, s.head_stride);
  const std::vector<uint8_t> keys = b.read_cache(b.cache.keys), values = b.read_cache(b.cache.values);
  b.poison(s.attention, b.lane_rows(), s.attention_stride, b.c.n_heads * b.c.head_dim);
  device_ok(launch_attention(b.step, b.lanes, nullptr), "attention");
  const FloatVector found = read(s.attention, b.lane_rows() * s.attention_stride);
  for (int lane = 0; lane < b.c.lanes; lane++)
    for (int t = 0; t < b.n_tokens; t++) {
      Doubles expected;
      for (int head = 0; head < b.c.n_heads; head++) {
        const int last = b.c.position + t, first = b.c.window ? std::max(0, last + 1 - b.c.window) : 0,
                  kv = head / (b.c.n_heads / b.c.n_kv_heads);
        const float* q = b.row(query, s.query_stride, lane, t) + head * s.head_stride;
        Doubles scores, sum(static_cast<size_t>(b.c.head_dim), 0.0);
        for (int p = first; p <= last; p++) {
          const Doubles k = b.cached(keys, lane, kv, p);
          double dot = 0;
          for (int i = 0; i < b.c.head_dim; i++) dot += static_cast<double>(q[i]) * k[static_cast<size_t>(i)];
          scores.push_back(dot / std::sqrt(static_cast<double>(b.c.head_dim)));
        }
        const double highest = *std::max_element(scores.begin(), scores.end());
        double total = 0;
        for (int p = first; p <= last; p++) {
          const double weight = std::exp(scores[static_cast<size_t>(p - first)] - highest);
          const Doubles v = b.cached(values, lane, kv, p);
          total += weight;
          for (size_t i = 0; i < sum.size(); i++) sum[i] += weight * v[i];
        }
        for (double v : sum) expected.push_back(v / total);
      }
      const float* row = b.row(found, s.attention_stride, lane, t);
      close(FloatVector(row, row + s.attention_stride), expected, 1e-5, b.name + " attention");
    }
  b.check_padding(found, s.attention_stride, b.c.n_heads * b.c.head_dim, "attention");
}

inline void test_attention_out(Bench& b) {
  const DeviceWorkspace& s = b.s();
  const int width = b.c.n_heads * b.c.head_dim;
  const FloatVector in = b.randomize(s.attention, b.lane_rows(), s.attention_stride, width);
  b.poison(s.attention_out, b.lane_rows(), s.dim_stride, b.c.dim);
  device_ok(launch_attention_out(b.step, b.lanes, nullptr), "attention_out");
  const FloatVector found = read(s.attention_out, b.lane_rows() * s.dim_stride);
  for (int lane = 0; lane < b.c.lanes; lane++)
    for (int t = 0; t < b.n_tokens; t++) {
      const HostLayer& l = b.model.layers[static_cast<size_t>(lane)];
      Doubles expected = multiply(l.wo, widen(b.row(in, s.attention_stride, lane, t), width));
      for (size_t i = 0; i < expected.size() && !l.bo.empty(); i++) expected[i] += static_cast<double>(l.bo[i]);
      const float* row = b.row(found, s.dim_stride, lane, t);
      close(FloatVector(row, row + b.c.dim), expected, b.tolerance(), b.name + " attention_out");
    }
  b.check_padding(found, s.dim_stride, b.c.dim, "attention_out");
}

// Very large values beside very small ones, and then one that is infinite or not a number, which no way of staging may
// lose.
inline void test_extremes(Bench& b) {
  const DeviceWorkspace& s = b.s();
  const HostLayer& l = b.model.layers[0];
  const int width = b.c.n_heads * b.c.head_dim;
  FloatVector in(static_cast<size_t>(b.lane_rows() * s.attention_stride), 0.0f);
  for (int i = 0; i < width; i++) in[static_cast<size_t>(i)] = b.random.uniform() * (i / 32 % 2 ? 1e-36f : 1e30f);
  auto products = [&] {
    write(s.attention, in);
    device_ok(launch_attention_out(b.step, {0, 0, 1}, nullptr), "attention_out");
    return read(s.attention_out, b.c.dim);
  };
  close(products(), multiply(l.wo, widen(in.data(), width)), b.tolerance(), b.name + " extremes");
  for (int i = 0; i < width; i++) in[static_cast<size_t>(i)] = 1e-30f * b.random.uniform();
  if (l.bo.empty()) close(products(), multiply(l.wo, widen(in.data(), width)), b.tolerance(), b.name + " all small");
  for (float wrong : {NAN, INFINITY, -INFINITY}) {
    in[static_cast<size_t>(b.random.below(width))] = wrong;
    bool none = true;
    for (float v : products()) none = none && !std::isfinite(v);
    that(none, b.name + " tells of an input of " + std::to_string(wrong));
  }
}

// b_j: the sum of up to `bypass` earlier lanes' attention outputs.
inline void add_bypass(Doubles& to, const Bench& b, const FloatVector& attention_out, int lane, int t) {
  for (int k = 1; k <= b.c.bypass && k <= lane; k++)
    for (size_t i = 0; i < to.size(); i++)
      to[i] += static_cast<double>(b.row(attention_out, b.s().dim_stride, lane - k, t)[i]);
}

inline void test_gate_up(Bench& b) {
  const DeviceWorkspace& s = b.s();
  const FloatVector x = b.randomize(s.x, b.n_tokens, s.dim_stride, b.c.dim, 2.0f);
  const FloatVector a = b.randomize(s.attention_out, b.lane_rows(), s.dim_stride, b.c.dim);
  b.poison(s.gate_up, b.lane_rows(), s.hidden_stride, b.c.hidden_dim);
  device_ok(launch_gate_up(b.step, b.lanes, nullptr), "gate_up");
  const FloatVector found = read(s.gate_up, b.lane_rows() * s.hidden_stride);
  for (int lane = 0; lane < b.c.lanes; lane++)
    for (int t = 0; t < b.n_tokens; t++) {
      const HostLayer& l = b.model.layers[static_cast<size_t>(lane)];
      Doubles h = widen(x.data() + t * s.dim_stride, b.c.dim);
      for (size_t i = 0; i < h.size(); i++) h[i] += static_cast<double>(b.row(a, s.dim_stride, lane, t)[i]);
      add_bypass(h, b, a, lane, t);
      h = rms_norm(h, l.mlp_norm, 1e-5);
      const Doubles gate = multiply(l.w_gate, h), up = multiply(l.w_up, h);
      Doubles expected(gate.size());
      for (size_t i = 0; i < gate.size(); i++) expected[i] = gate[i] / (1 + std::exp(-gate[i])) * up[i];
      const float* row = b.row(found, s.hidden_stride, lane, t);
      close(FloatVector(row, row + b.c.hidden_dim), expected, 3 * b.tolerance(), b.name + " gate_up");
    }
  b.check_padding(found, s.hidden_stride, b.c.hidden_dim, "gate_up");
}

inline void test_down(Bench& b) {
  const DeviceWorkspace& s = b.s();
  const FloatVector x = b.randomize(s.x, b.n_tokens, s.dim_stride, b.c.dim);
  const FloatVector a = b.randomize(s.attention_out, b.lane_rows(), s.dim_stride, b.c.dim);
  const FloatVector h = b.randomize(s.gate_up, b.lane_rows(), s.hidden_stride, b.c.hidden_dim);
  device_ok(launch_down(b.step, b.lanes, nullptr), "down");
  const FloatVector wide = read(s.x, static_cast<int64_t>(b.n_tokens) * s.dim_stride);
  for (int t = 0; t < b.n_tokens; t++) {
    Doubles expected = widen(x.data() + t * s.dim_stride, b.c.dim);
    for (int lane = 0; lane < b.c.lanes; lane++) {
      const Doubles m = multiply(b.model.layers[static_cast<size_t>(lane)].w_down,
                                 widen(b.row(h, s.hidden_stride, lane, t), b.c.hidden_dim));
      for (size_t i = 0; i < expected.size(); i++)
        expected[i] += static_cast<double>(b.row(a, s.dim_stride, lane, t)[i]) + m[i];
      if (b.c.bypass_residual) add_bypass(expected, b, a, lane, t);
    }
    close(FloatVector(wide.begin() + t * s.dim_stride, wide.end()), expected, b.tolerance(), b.name + " down");
  }
  b.check_padding(wide, s.dim_stride, b.c.dim, "down");

  // Lane by lane and joined: the same bits.
  write(s.x, x);
  b.poison(s.mlp_out, b.lane_rows(), s.dim_stride, b.c.dim);
  for (int lane = b.c.lanes - 1; lane >= 0; lane--)
    device_ok(launch_down_apart(b.step, {0, lane, 1}, nullptr), "down_apart");
  that(same_bits(read(s.x, static_cast<int64_t>(x.size())), x), b.name + " down_apart leaves x");
  device_ok(launch_join(b.step, b.c.lanes, nullptr), "join");
  that(same_bits(read(s.x, static_cast<int64_t>(x.size())), wide), b.name + " join has the bits of down");
}

inline void test_head(Bench& b) {
  const DeviceWorkspace& s = b.s();
  const FloatVector x = b.randomize(s.x, b.n_tokens, s.dim_stride, b.c.dim);
  const int rows = std::min(b.n_tokens, CQIL_MAX_LOGIT_ROWS), first = b.n_tokens - rows, vocab = b.c.vocab_size;
  b.poison(s.logits, rows, vocab, vocab);
  device_ok(launch_head(b.step, first, rows, nullptr), "head");
  const FloatVector logits = read(s.logits, static_cast<int64_t>(rows) * vocab);
  for (DeviceToken& token : b.tokens) token.target = b.random.below(vocab);
  b.send_tokens();
  b.poison(s.scores, 1, CQIL_MAX_BATCH, CQIL_MAX_BATCH);
  device_ok(launch_scores(b.step, first, rows, nullptr), "scores");
  const FloatVector scores = read(s.scores, CQIL_MAX_BATCH);
  for (int r = 0; r < rows; r++) {
    const Doubles expected = multiply(
        b.model.output, rms_norm(widen(x.data() + (first + r) * s.dim_stride, b.c.dim), b.model.output_norm, 1e-5));
    const FloatVector found(logits.begin() + r * vocab, logits.begin() + (r + 1) * vocab);
    close(found, expected, b.tolerance(), b.name + " logits");
    double sum = 0;
    for (float v : found) sum += std::exp(static_cast<double>(v));
    near(scores[static_cast<size_t>(first + r)],
         static_cast<double>(found[static_cast<size_t>(b.tokens[static_cast<size_t>(first + r)].target)]) -
             std::log(sum),
         2e-5, b.name + " scores");
  }
  for (int i = 0; i < CQIL_MAX_BATCH; i++)
    if (i < first || i >= first + rows) that(std::isnan(scores[static_cast<size_t>(i)]), b.name + " scores elsewhere");
  for (float wrong : {NAN, INFINITY, -INFINITY}) {
    FloatVector odd = logits;
    odd[static_cast<size_t>(b.random.below(vocab))] = wrong;
    write(s.logits, odd);
    device_ok(launch_scores(b.step, first, rows, nullptr), "scores");
    that(!std::isfinite(read(s.scores, CQIL_MAX_BATCH)[static_cast<size_t>(first)]),
         b.name + " scores tell of a logit of " + std::to_string(wrong));
  }
}

inline void test_products(Bench& b) {
  test_qkv(b);
  test_attention_out(b);
  test_gate_up(b);
  test_down(b);
  test_head(b);
}

}  // namespace check
