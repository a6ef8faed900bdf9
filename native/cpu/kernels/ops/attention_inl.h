// Attention: keys and values into the cache, and queries against them.
#pragma once
#include "elementwise_inl.h"
#include "../formats/kv_formats.h"
#include "products_inl.h"

namespace cqil {
namespace CQIL_ISA {

template <class Kv>
void store_kv(const float* x, int64_t stride, uint8_t* row) {
  for (int64_t i = 0; i < stride; i += Kv::kBlock) Kv::store(x + i, row + Kv::bytes(i));
}

// How far ahead of the key or value in use the cache is asked for when one token is decoded: a head's rows follow each
// other, and there are too few of them for hardware prefetchers to get going. Many tokens find them in the caches.
constexpr int64_t kCachePrefetchBytes = 4096;
// Values are asked for while keys are scored, so that memory is never without a request; no more of them than a second
// cache keeps.
constexpr int64_t kValuesPrefetchBytes = 131072;

// Sums of each of n_queries side by side: four hide the latency of an addition, but all of them must fit the registers.
constexpr int sums_beside(int n_queries) {
  return CQIL_ATTEND_SUMS >= 4 * n_queries ? 4 : CQIL_ATTEND_SUMS >= 2 * n_queries ? 2 : 1;
}

inline int64_t position_of(const AttendArgs& a, int t) { return static_cast<int64_t>(a.last) + a.step * t; }

// The first position that query t attends to.
inline int64_t first_position(const AttendArgs& a, int t) {
  const int64_t first = a.window ? position_of(a, t) - a.window + 1 : 0;
  return first > 0 ? first : 0;
}

// Scores of R positions from p on, for T queries; kept at scores[t, p - origin].
template <class Kv, int T, int R>
inline void score_keys(const AttendArgs& a, int64_t p, int64_t origin) {
  const uint8_t* key = a.keys + p * Kv::bytes(a.stride);
  if (a.step == 0) {
    prefetch_range(key + kCachePrefetchBytes, R * Kv::bytes(a.stride));
    if ((p - origin) * Kv::bytes(a.stride) < kValuesPrefetchBytes)
      prefetch_range(a.values + p * Kv::bytes(a.stride), R * Kv::bytes(a.stride));
  }
  F32x16 sum[T][R];
  CQIL_UNROLL for (int t = 0; t < T; t++) { CQIL_UNROLL for (int r = 0; r < R; r++) sum[t][r] = zero(); }
  for (int64_t i = 0; i < a.stride; i += Kv::kBlock) {
    CQIL_UNROLL for (int run = 0; run < Kv::kBlock; run += 16) {
      F32x16 k[R];
      CQIL_UNROLL for (int r = 0; r < R; r++) k[r] = Kv::load(key + Kv::bytes(r * a.stride + i), run);
      CQIL_UNROLL for (int t = 0; t < T; t++) {
        const F32x16 q = load(a.query + t * a.query_stride + i + run);
        CQIL_UNROLL for (int r = 0; r < R; r++) sum[t][r] = fma(k[r], q, sum[t][r]);
      }
    }
  }
  CQIL_UNROLL for (int t = 0; t < T; t++) {
    float* scores = a.scores + t * a.scores_stride + (p - origin);
    store_sums<R>(sum[t], scores);
    CQIL_UNROLL for (int r = 0; r < R; r++) scores[r] *= a.scale;
  }
}

// sum[t, j] += weight[t, p] times value p for positions [from, to): N vectors of 16 from column `column` on. `weights`
// begins with the weight of position `from`.
template <class Kv, int T, int N>
inline void weigh_values(const AttendArgs& a, int64_t from, int64_t to, int64_t column, const float* weights,
                         F32x16* sums) {
  F32x16 sum[T][N];
  CQIL_UNROLL for (int t = 0; t < T; t++) { CQIL_UNROLL for (int j = 0; j < N; j++) sum[t][j] = sums[t * N + j]; }
  const uint8_t* value = a.values + from * Kv::bytes(a.stride) + Kv::bytes(column);
  for (int64_t i = 0; i < to - from; i++, value += Kv::bytes(a.stride)) {
    if (a.step == 0) prefetch_range(value + kCachePrefetchBytes, Kv::bytes(16 * N));
    F32x16 v[N];
    CQIL_UNROLL for (int j = 0; j < N; j++) v[j] = Kv::load(value, 16 * j);
    CQIL_UNROLL for (int t = 0; t < T; t++) {
      const F32x16 weight = broadcast(weights[t * a.scores_stride + i]);
      CQIL_UNROLL for (int j = 0; j < N; j++) sum[t][j] = fma(v[j], weight, sum[t][j]);
    }
  }
  CQIL_UNROLL for (int t = 0; t < T; t++) { CQIL_UNROLL for (int j = 0; j < N; j++) sums[t * N + j] = sum[t][j]; }
}

// N vectors of every query's output from `column` on. Each query sums its own positions in ascending order: those only
// the earlier queries' windows reach, those all share, and its last ones.
template <class Kv, int T, int N>
inline void attend_columns(const AttendArgs& a, int64_t column, const float* total) {
  const int64_t origin = first_position(a, 0), shared = first_position(a, T - 1), shared_end = position_of(a, 0) + 1;
  F32x16 sums[T * N];
  CQIL_UNROLL for (int i = 0; i < T * N; i++) sums[i] = zero();
  auto weights_from = [&](int t, int64_t p) { return a.scores + t * a.scores_stride + (p - origin); };
  for (int t = 0; t < T - 1; t++) {
    const int64_t from = first_position(a, t), end = shared < shared_end ? shared : shared_end;
    weigh_values<Kv, 1, N>(a, from, end, column, weights_from(t, from), sums + t * N);
  }
  if (shared < shared_end) weigh_values<Kv, T, N>(a, shared, shared_end, column, weights_from(0, shared), sums);
  for (int t = 1; t < T; t++) {
    const int64_t first = first_position(a, t), from = first > shared_end ? first : shared_end;
    weigh_values<Kv, 1, N>(a, from, position_of(a, t) + 1, column, weights_from(t, from), sums + t * N);
  }
  for (int t = 0; t < T; t++)
    for (int j = 0; j < N; j++) {
      const int64_t at = column + 16 * j, rest = a.head_dim - at;
      if (rest > 0)
        store_partial(a.out + t * a.out_stride + at, mul(sums[t * N + j], broadcast(1.0f / total[t])),
                      static_cast<int>(rest < 16 ? rest : 16));
    }
}

// In place: scores to exp(score - highest); gives their sum.
inline float exponentials(float* scores, int64_t count) {
  const F32x16 shift = broadcast(max_of(scores, count));
  F32x16 sum = zero();
  each_vector(
      count,
      [&](int64_t i) {
        const F32x16 e = exp(sub(load(scores + i), shift));
        store(scores + i, e);
        sum = add(sum, e);
      },
      [&](int64_t i, int rest) {
        store_partial(scores + i, exp(sub(load_partial(scores + i, rest), shift)), rest);
        sum = add(sum, load_partial(scores + i, rest));
      });
  return reduce_add(sum);
}

template <class Kv, int T>
void attend_queries(const AttendArgs& a) {
  // All queries score all positions any of them attends to; what a query does not attend to is never looked at again.
  const int64_t origin = first_position(a, 0), end = position_of(a, T - 1) + 1;
  constexpr int kBeside = sums_beside(T);
  int64_t p = origin;
  for (; p + kBeside <= end; p += kBeside) score_keys<Kv, T, kBeside>(a, p, origin);
  for (; p < end; p++) score_keys<Kv, T, 1>(a, p, origin);
  if (a.cap > 0)
    for (int t = 0; t < T; t++) cap(a.scores + t * a.scores_stride, end - origin, a.cap);
  float total[T];
  for (int t = 0; t < T; t++) {
    const int64_t first = first_position(a, t);
    total[t] = exponentials(a.scores + t * a.scores_stride + (first - origin), position_of(a, t) - first + 1);
  }
  // Whole blocks of the format; what is left over of several goes block by block.
  constexpr int kBlockVectors = static_cast<int>(Kv::kBlock / 16),
                kVectors = kBeside > kBlockVectors ? kBeside : kBlockVectors;
  int64_t column = 0;
  for (; column + 16 * kVectors <= a.stride; column += 16 * kVectors) attend_columns<Kv, T, kVectors>(a, column, total);
  for (; column < a.stride; column += Kv::kBlock) attend_columns<Kv, T, kBlockVectors>(a, column, total);
}

template <class Kv>
void attend(const AttendArgs& a) {
  switch (a.n_queries) {
    case 1: return attend_queries<Kv, 1>(a);
    case 2: return attend_queries<Kv, 2>(a);
    case 3: return attend_queries<Kv, 3>(a);
    default: return attend_queries<Kv, kAttendQueries>(a);
  }
}

}  // namespace CQIL_ISA
}  // namespace cqil
