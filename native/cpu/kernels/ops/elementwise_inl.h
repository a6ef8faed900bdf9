// What is done to one vector: norms, sums, activations, caps, exponentials.
#pragma once
#include <math.h>

#include "../kernels.h"

namespace cqil {
namespace CQIL_ISA {

// Calls whole(i) for whole vectors and part(i, n) for a last one of n < 16 elements.
template <class Whole, class Part>
inline void each_vector(int64_t n, Whole whole, Part part) {
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) whole(i);
  if (i < n) part(i, static_cast<int>(n - i));
}

// exp(x) to about one unit in the last place, and 0 to 1e-38 below -87: 2^n * 2^f with n whole and |f| <= 1/2, the
// second factor from the Taylor series of e^r, r = f ln 2, whose first missing term is below 2^-26 there. NaN stays
// NaN: where one side is NaN, max and min give the second.
inline F32x16 exp(F32x16 x) {
  x = min(broadcast(88.0f), max(broadcast(-87.0f), x));
  const F32x16 n = round(mul(x, broadcast(1.44269504f)));
  F32x16 r = fma(n, broadcast(-0.693359375f), x);  // ln 2, its first bits: exact
  r = fma(n, broadcast(2.12194440e-4f), r);        // and the rest
  F32x16 p = broadcast(1.0f / 5040);
  p = fma(p, r, broadcast(1.0f / 720));
  p = fma(p, r, broadcast(1.0f / 120));
  p = fma(p, r, broadcast(1.0f / 24));
  p = fma(p, r, broadcast(1.0f / 6));
  p = fma(p, r, broadcast(0.5f));
  p = fma(p, r, broadcast(1.0f));
  p = fma(p, r, broadcast(1.0f));
  return scale_by_power(p, min(n, broadcast(127.0f)));
}

// Vectors whose squares overflow give NaN: divided by an infinite root they would be zero, as if they were nothing.
inline void rms_norm(const float* x, const float* weight, int64_t n, float eps, float* out) {
  F32x16 sum = zero();
  each_vector(
      n,
      [&](int64_t i) {
        const F32x16 v = load(x + i);
        sum = fma(v, v, sum);
      },
      [&](int64_t i, int rest) {
        const F32x16 v = load_partial(x + i, rest);
        sum = fma(v, v, sum);
      });
  const float mean = reduce_add(sum) / static_cast<float>(n);
  const F32x16 scale = broadcast(mean < INFINITY ? 1.0f / sqrtf(mean + eps) : NAN);
  each_vector(
      n, [&](int64_t i) { store(out + i, mul(mul(load(x + i), scale), load(weight + i))); },
      [&](int64_t i, int rest) {
        store_partial(out + i, mul(mul(load_partial(x + i, rest), scale), load_partial(weight + i, rest)), rest);
      });
}

inline void add_to(float* y, const float* x, int64_t n) {
  each_vector(
      n, [&](int64_t i) { store(y + i, add(load(y + i), load(x + i))); },
      [&](int64_t i, int rest) {
        store_partial(y + i, add(load_partial(y + i, rest), load_partial(x + i, rest)), rest);
      });
}

inline F32x16 silu_times(F32x16 gate, F32x16 up) {
  const F32x16 one = broadcast(1.0f);
  return mul(div(gate, add(one, exp(sub(zero(), gate)))), up);
}

// g / 2 (1 + tanh u) is g / (1 + exp(-2u)), which loses no digits where tanh u is near -1.
inline F32x16 gelu_tanh_times(F32x16 gate, F32x16 up) {
  const F32x16 one = broadcast(1.0f), square = mul(gate, gate);
  const F32x16 u = mul(gate, fma(square, broadcast(0.0356774081f), broadcast(0.797884561f)));
  return mul(div(gate, add(one, exp(mul(broadcast(-2.0f), u)))), up);
}

// cap tanh(x / cap), tanh u = 1 - 2 / (1 + exp(2u)).
inline F32x16 capped(F32x16 x, F32x16 cap, F32x16 twice_inverse) {
  const F32x16 one = broadcast(1.0f);
  const F32x16 tanh = sub(one, div(broadcast(2.0f), add(one, exp(mul(x, twice_inverse)))));
  return fma(x, zero(), mul(cap, tanh));  // 0 x is NaN where x is not finite
}

inline void cap(float* x, int64_t n, float limit) {
  const F32x16 cap = broadcast(limit), twice_inverse = broadcast(2.0f / limit);
  each_vector(
      n, [&](int64_t i) { store(x + i, capped(load(x + i), cap, twice_inverse)); },
      [&](int64_t i, int rest) { store_partial(x + i, capped(load_partial(x + i, rest), cap, twice_inverse), rest); });
}

inline void gelu_tanh_mul(float* gate, const float* up, int64_t n) {
  each_vector(
      n, [&](int64_t i) { store(gate + i, gelu_tanh_times(load(gate + i), load(up + i))); },
      [&](int64_t i, int rest) {
        store_partial(gate + i, gelu_tanh_times(load_partial(gate + i, rest), load_partial(up + i, rest)), rest);
      });
}

inline void silu_mul(float* gate, const float* up, int64_t n) {
  each_vector(
      n, [&](int64_t i) { store(gate + i, silu_times(load(gate + i), load(up + i))); },
      [&](int64_t i, int rest) {
        store_partial(gate + i, silu_times(load_partial(gate + i, rest), load_partial(up + i, rest)), rest);
      });
}

inline float max_of(const float* x, int64_t n) {
  float highest = x[0];
  F32x16 m = broadcast(highest);
  each_vector(
      n, [&](int64_t i) { m = max(m, load(x + i)); },
      [&](int64_t i, int rest) {
        for (int j = 0; j < rest; j++) highest = x[i + j] > highest ? x[i + j] : highest;
      });
  const float vectors = reduce_max(m);
  return vectors > highest ? vectors : highest;
}

inline double log_sum_exp(const float* x, int64_t n) {
  const float highest = max_of(x, n);
  const F32x16 shift = broadcast(highest);
  F32x16 sum = zero();  // gains 0 x, which is NaN where x is not finite
  each_vector(
      n,
      [&](int64_t i) {
        const F32x16 v = load(x + i);
        sum = fma(v, zero(), add(sum, exp(sub(v, shift))));
      },
      [&](int64_t i, int rest) {
        float e[16] = {};
        const F32x16 v = load_partial(x + i, rest);
        store_partial(e, exp(sub(v, shift)), rest);
        sum = fma(v, zero(), add(sum, load(e)));
      });
  return static_cast<double>(highest) + log(static_cast<double>(reduce_add(sum)));
}

}  // namespace CQIL_ISA
}  // namespace cqil
