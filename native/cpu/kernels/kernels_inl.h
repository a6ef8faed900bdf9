// The kernels, written once over F32x16 and compiled once per instruction set by the file that includes this one.
// That file defines CQIL_ISA (a namespace), CQIL_MATVEC_ROWS (rows whose sums run side by side, enough to hide the
// latency of an addition), CQIL_TILE_ROWS and CQIL_TILE_TOKENS (the register tile of matmul).
#pragma once

#if defined(__GNUC__) || defined(__clang__)
#define CQIL_UNROLL _Pragma("GCC unroll 8")
#else
#define CQIL_UNROLL
#endif

#include <utility>

#include "kernels.h"
#include "kv_formats.h"
#include "weight_formats.h"

namespace cqil {
namespace CQIL_ISA {

inline void prefetch(const uint8_t* at) {
#if defined(__GNUC__) || defined(__clang__)
  __builtin_prefetch(at);
#elif defined(_M_X64)
  _mm_prefetch(reinterpret_cast<const char*>(at), _MM_HINT_T0);
#else
  (void)at;
#endif
}

// y[r] = the sum of sum[r]'s lanes.
template <int R>
inline void store_sums(const F32x16* sum, float* y) {
  if constexpr (R % 4 == 0)
    CQIL_UNROLL for (int r = 0; r < R; r += 4) reduce_add4(sum + r, y + r);
  else
    CQIL_UNROLL for (int r = 0; r < R; r++) y[r] = reduce_add(sum[r]);
}

// ---- products with packed weights ----------------------------------------------------------------------------------

// Adds part C of each row's block, and the parts after it. Rows take turns so that their sums, each a chain of dependent
// additions, run side by side.
template <class W, int C, int R>
inline void add_parts(const W (&blocks)[R], const float* x, F32x16* sum) {
  if constexpr (C < W::kParts) {
    CQIL_UNROLL for (int r = 0; r < R; r++)
      blocks[r].template part<C>([&](int i, F32x16 w) { sum[r] = fma(w, load(x + 16 * i), sum[r]); });
    add_parts<W, C + 1>(blocks, x, sum);
  }
}

template <class W, int... Row>
inline void add_block(const uint8_t* block, int64_t row_bytes, const float* x, F32x16* sum, std::integer_sequence<int, Row...>) {
  const W blocks[] = {W{block + Row * row_bytes}...};
  add_parts<W, 0>(blocks, x, sum);
}

// Calls f for every 16-weight run of one block.
template <class W, int C = 0, class F>
inline void each_run(const W& block, F f) {
  if constexpr (C < W::kParts) {
    block.template part<C>(f);
    each_run<W, C + 1>(block, f);
  }
}

constexpr int64_t kPrefetchBytes = 12288;

template <class W, int R>
inline void dot_rows(const uint8_t* rows, int64_t row_bytes, int64_t cols, const float* x, float* y) {
  F32x16 sum[R];
  CQIL_UNROLL for (int r = 0; r < R; r++) sum[r] = zero();
  const int64_t blocks = cols / W::kBlock;
  // The rows after these follow in memory, and are asked for as these are read: R interleaved streams are more than
  // hardware prefetchers follow. Short rows are asked for several turns ahead, for memory is about that far away.
  const int64_t distance = R * row_bytes > kPrefetchBytes ? R * row_bytes : kPrefetchBytes;
  for (int64_t b = 0; b < blocks; b++) {
    const float* xb = x + b * W::kBlock;
    const uint8_t* ahead = rows + distance + b * R * W::kBytes;
    CQIL_UNROLL for (int i = 0; i < R * W::kBytes; i += 64) prefetch(ahead + i);
    add_block<W>(rows + b * W::kBytes, row_bytes, xb, sum, std::make_integer_sequence<int, R>());
  }
  if constexpr (W::kBlock == 16) {
    const int rest = static_cast<int>(cols % 16);
    if (rest)
      CQIL_UNROLL for (int r = 0; r < R; r++)
        sum[r] = fma(W::partial(rows + r * row_bytes + blocks * W::kBytes, rest), load(x + blocks * 16), sum[r]);
  }
  store_sums<R>(sum, y);
}

template <class W>
void matvec(const uint8_t* rows, int64_t row_bytes, int64_t n_rows, int64_t cols, const float* x, float* y) {
  int64_t r = 0;
  for (; r + CQIL_MATVEC_ROWS <= n_rows; r += CQIL_MATVEC_ROWS)
    dot_rows<W, CQIL_MATVEC_ROWS>(rows + r * row_bytes, row_bytes, cols, x, y + r);
  for (; r < n_rows; r++) dot_rows<W, 1>(rows + r * row_bytes, row_bytes, cols, x, y + r);
}

template <class W>
void unpack(const uint8_t* rows, int64_t row_bytes, int64_t n_rows, int64_t cols, float* out) {
  for (int64_t r = 0; r < n_rows; r++) {
    const uint8_t* row = rows + r * row_bytes;
    float* to = out + r * padded(cols);
    const int64_t blocks = cols / W::kBlock;
    for (int64_t b = 0; b < blocks; b++)
      each_run(W{row + b * W::kBytes}, [&](int i, F32x16 w) { store(to + b * W::kBlock + 16 * i, w); });
    if constexpr (W::kBlock == 16)
      if (cols % 16) store(to + blocks * 16, W::partial(row + blocks * W::kBytes, static_cast<int>(cols % 16)));
  }
}

// ---- products of float32 rows --------------------------------------------------------------------------------------

// Columns whose part of a tile's rows stays in the first cache.
constexpr int64_t kTileCols = 1024;

// Adds columns [from, to) to the sums of an R x T tile. Sums begin at zero with column 0, wait in carry between calls, and
// go to y once the last column n is in.
template <int R, int T>
inline void tile(const float* w, const float* x, int64_t x_stride, int64_t from, int64_t to, int64_t n, float* carry, float* y,
                 int64_t y_stride) {
  F32x16 sum[T][R];
  CQIL_UNROLL for (int t = 0; t < T; t++)
    CQIL_UNROLL for (int r = 0; r < R; r++) sum[t][r] = from == 0 ? zero() : load(carry + 16 * (t * R + r));
  for (int64_t k = from; k < to; k += 16) {
    F32x16 wk[R];
    CQIL_UNROLL for (int r = 0; r < R; r++) wk[r] = load(w + r * n + k);
    CQIL_UNROLL for (int t = 0; t < T; t++) {
      const F32x16 xk = load(x + t * x_stride + k);
      CQIL_UNROLL for (int r = 0; r < R; r++) sum[t][r] = fma(wk[r], xk, sum[t][r]);
    }
  }
  if (to == n) {
    CQIL_UNROLL for (int t = 0; t < T; t++) store_sums<R>(sum[t], y + t * y_stride);
  } else {
    CQIL_UNROLL for (int t = 0; t < T; t++)
      CQIL_UNROLL for (int r = 0; r < R; r++) store(carry + 16 * (t * R + r), sum[t][r]);
  }
}

template <int T>
inline void tile_column(const float* w, int64_t n_rows, const float* x, int64_t x_stride, int64_t n, float* carry, float* y,
                        int64_t y_stride) {
  for (int64_t from = 0; from < n; from += kTileCols) {
    const int64_t to = from + kTileCols < n ? from + kTileCols : n;
    int64_t r = 0;
    for (; r + CQIL_TILE_ROWS <= n_rows; r += CQIL_TILE_ROWS)
      tile<CQIL_TILE_ROWS, T>(w + r * n, x, x_stride, from, to, n, carry + 16 * T * r, y + r, y_stride);
    for (; r < n_rows; r++) tile<1, T>(w + r * n, x, x_stride, from, to, n, carry + 16 * T * r, y + r, y_stride);
  }
}

// The last tokens, fewer than a tile's, together.
template <int T>
inline void rest_column(int64_t n_tokens, const float* w, int64_t n_rows, const float* x, int64_t x_stride, int64_t n,
                        float* carry, float* y, int64_t y_stride) {
  if (n_tokens == T) return tile_column<T>(w, n_rows, x, x_stride, n, carry, y, y_stride);
  if constexpr (T > 1) rest_column<T - 1>(n_tokens, w, n_rows, x, x_stride, n, carry, y, y_stride);
}

inline void matmul(const float* w, int64_t n_rows, const float* x, int64_t x_stride, int64_t n_tokens, int64_t n, float* y,
                   int64_t y_stride) {
  alignas(64) float carry[16 * CQIL_TILE_TOKENS * kPanelRows];
  int64_t t = 0;
  for (; t + CQIL_TILE_TOKENS <= n_tokens; t += CQIL_TILE_TOKENS)
    tile_column<CQIL_TILE_TOKENS>(w, n_rows, x + t * x_stride, x_stride, n, carry, y + t * y_stride, y_stride);
  rest_column<CQIL_TILE_TOKENS - 1>(n_tokens - t, w, n_rows, x + t * x_stride, x_stride, n, carry, y + t * y_stride, y_stride);
}

// ---- elementwise ---------------------------------------------------------------------------------------------------

// Calls whole(i) for whole vectors and part(i, n) for a last one of n < 16 elements.
template <class Whole, class Part>
inline void each_vector(int64_t n, Whole whole, Part part) {
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) whole(i);
  if (i < n) part(i, static_cast<int>(n - i));
}

// exp(x) to about one unit in the last place, and 0 to 1e-38 below -87: 2^n * 2^f with n whole and |f| <= 1/2, the
// second factor from the Taylor series of e^r, r = f ln 2, whose first missing term is below 2^-26 there.
inline F32x16 exp(F32x16 x) {
  x = min(max(x, broadcast(-87.0f)), broadcast(88.0f));
  const F32x16 n = round(mul(x, broadcast(1.44269504f)));
  F32x16 r = fma(n, broadcast(-0.693359375f), x);       // ln 2, its first bits: exact
  r = fma(n, broadcast(2.12194440e-4f), r);             // and the rest
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

inline void rms_norm(const float* x, const float* weight, int64_t n, float eps, float* out) {
  F32x16 sum = zero();
  each_vector(
      n, [&](int64_t i) { const F32x16 v = load(x + i); sum = fma(v, v, sum); },
      [&](int64_t i, int rest) { const F32x16 v = load_partial(x + i, rest); sum = fma(v, v, sum); });
  const float mean = reduce_add(sum) / static_cast<float>(n);
  const F32x16 scale = broadcast(1.0f / sqrtf(mean + eps));
  each_vector(
      n, [&](int64_t i) { store(out + i, mul(mul(load(x + i), scale), load(weight + i))); },
      [&](int64_t i, int rest) {
        store_partial(out + i, mul(mul(load_partial(x + i, rest), scale), load_partial(weight + i, rest)), rest);
      });
}

inline void add_to(float* y, const float* x, int64_t n) {
  each_vector(
      n, [&](int64_t i) { store(y + i, add(load(y + i), load(x + i))); },
      [&](int64_t i, int rest) { store_partial(y + i, add(load_partial(y + i, rest), load_partial(x + i, rest)), rest); });
}

inline F32x16 silu_times(F32x16 gate, F32x16 up) {
  const F32x16 one = broadcast(1.0f);
  return mul(div(gate, add(one, exp(sub(zero(), gate)))), up);
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
  F32x16 sum = zero();
  each_vector(
      n, [&](int64_t i) { sum = add(sum, exp(sub(load(x + i), shift))); },
      [&](int64_t i, int rest) {
        float e[16] = {};
        store_partial(e, exp(sub(load_partial(x + i, rest), shift)), rest);
        sum = add(sum, load(e));
      });
  return static_cast<double>(highest) + log(static_cast<double>(reduce_add(sum)));
}

// ---- attention of one head at one position -------------------------------------------------------------------------

template <class Kv>
void store_kv(const float* x, int64_t stride, uint8_t* row) {
  for (int64_t i = 0; i < stride; i += Kv::kBlock) Kv::store(x + i, row + Kv::bytes(i));
}

// The first position that query t attends to.
inline int64_t first_position(const AttendArgs& a, int t) {
  const int64_t first = a.window ? static_cast<int64_t>(a.last) + t - a.window + 1 : 0;
  return first > 0 ? first : 0;
}

// Scores of R positions from p on, for T queries; kept at scores[t, p - origin].
template <class Kv, int T, int R>
inline void score_keys(const AttendArgs& a, int64_t p, int64_t origin) {
  const uint8_t* key = a.keys + p * Kv::bytes(a.stride);
  F32x16 sum[T][R];
  CQIL_UNROLL for (int t = 0; t < T; t++)
    CQIL_UNROLL for (int r = 0; r < R; r++) sum[t][r] = zero();
  for (int64_t i = 0; i < a.stride; i += Kv::kBlock)
    CQIL_UNROLL for (int run = 0; run < Kv::kBlock; run += 16) {
      F32x16 k[R];
      CQIL_UNROLL for (int r = 0; r < R; r++) k[r] = Kv::load(key + Kv::bytes(r * a.stride + i), run);
      CQIL_UNROLL for (int t = 0; t < T; t++) {
        const F32x16 q = load(a.query + t * a.query_stride + i + run);
        CQIL_UNROLL for (int r = 0; r < R; r++) sum[t][r] = fma(k[r], q, sum[t][r]);
      }
    }
  CQIL_UNROLL for (int t = 0; t < T; t++) {
    float* scores = a.scores + t * a.scores_stride + (p - origin);
    store_sums<R>(sum[t], scores);
    CQIL_UNROLL for (int r = 0; r < R; r++) scores[r] *= a.scale;
  }
}

// sum[t, j] += weight[t, p] times value p for positions [from, to): N vectors of 16 from column `column` on.
template <class Kv, int T, int N>
inline void weigh_values(const AttendArgs& a, int64_t from, int64_t to, int64_t origin, int64_t column, const float* scores,
                         F32x16* sums) {
  F32x16 sum[T][N];
  CQIL_UNROLL for (int t = 0; t < T; t++)
    CQIL_UNROLL for (int j = 0; j < N; j++) sum[t][j] = sums[t * N + j];
  const uint8_t* value = a.values + from * Kv::bytes(a.stride) + Kv::bytes(column);
  for (int64_t p = from; p < to; p++, value += Kv::bytes(a.stride)) {
    F32x16 v[N];
    CQIL_UNROLL for (int j = 0; j < N; j++) v[j] = Kv::load(value, 16 * j);
    CQIL_UNROLL for (int t = 0; t < T; t++) {
      const F32x16 weight = broadcast(scores[t * a.scores_stride + (p - origin)]);
      CQIL_UNROLL for (int j = 0; j < N; j++) sum[t][j] = fma(v[j], weight, sum[t][j]);
    }
  }
  CQIL_UNROLL for (int t = 0; t < T; t++)
    CQIL_UNROLL for (int j = 0; j < N; j++) sums[t * N + j] = sum[t][j];
}

// N vectors of every query's output from `column` on. Each query sums its own positions in ascending order: those only
// the earlier queries' windows reach, those all share, and its last ones.
template <class Kv, int T, int N>
inline void attend_columns(const AttendArgs& a, int64_t column, const float* total) {
  const int64_t origin = first_position(a, 0), shared = first_position(a, T - 1), shared_end = static_cast<int64_t>(a.last) + 1;
  F32x16 sums[T * N];
  CQIL_UNROLL for (int i = 0; i < T * N; i++) sums[i] = zero();
  for (int t = 0; t < T - 1; t++) {
    const int64_t end = shared < shared_end ? shared : shared_end;
    weigh_values<Kv, 1, N>(a, first_position(a, t), end, origin, column, a.scores + t * a.scores_stride, sums + t * N);
  }
  if (shared < shared_end) weigh_values<Kv, T, N>(a, shared, shared_end, origin, column, a.scores, sums);
  for (int t = 1; t < T; t++) {
    const int64_t first = first_position(a, t), from = first > shared_end ? first : shared_end;
    weigh_values<Kv, 1, N>(a, from, shared_end + t, origin, column, a.scores + t * a.scores_stride, sums + t * N);
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
  const int64_t origin = first_position(a, 0), end = static_cast<int64_t>(a.last) + T;
  int64_t p = origin;
  for (; p + 4 <= end; p += 4) score_keys<Kv, T, 4>(a, p, origin);
  for (; p < end; p++) score_keys<Kv, T, 1>(a, p, origin);
  float total[T];
  for (int t = 0; t < T; t++) {
    const int64_t first = first_position(a, t);
    total[t] = exponentials(a.scores + t * a.scores_stride + (first - origin), a.last + t - first + 1);
  }
  // Four vectors side by side hide the latency of an addition; what is left over goes block by block.
  constexpr int kBlockVectors = static_cast<int>(Kv::kBlock / 16);
  int64_t column = 0;
  for (; column + 64 <= a.stride; column += 64) attend_columns<Kv, T, 4>(a, column, total);
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

// ---- the table -----------------------------------------------------------------------------------------------------

// constexpr, so that no instruction of this set runs before dispatch has asked for it.
constexpr Kernels make_kernels(const char* name) {
  Kernels k = {};
  k.name = name;
#define CQIL_FORMAT(dtype, W)      \
  k.matvec[dtype] = &matvec<W>; \
  k.unpack[dtype] = &unpack<W>;
  CQIL_FORMAT(CQIL_F32, WeightF32)
  CQIL_FORMAT(CQIL_F16, WeightF16)
  CQIL_FORMAT(CQIL_BF16, WeightBF16)
  CQIL_FORMAT(CQIL_Q8_0, WeightQ8_0)
  CQIL_FORMAT(CQIL_Q4_0, WeightQ4_0)
  CQIL_FORMAT(CQIL_Q4_K, WeightQ4_K)
  CQIL_FORMAT(CQIL_Q5_K, WeightQ5_K)
  CQIL_FORMAT(CQIL_Q6_K, WeightQ6_K)
#undef CQIL_FORMAT
#define CQIL_KV_FORMAT(dtype, Kv)     \
  k.store_kv[dtype] = &store_kv<Kv>; \
  k.attend[dtype] = &attend<Kv>;
  CQIL_KV_FORMAT(CQIL_F32, KvF32)
  CQIL_KV_FORMAT(CQIL_F16, KvF16)
  CQIL_KV_FORMAT(CQIL_Q8_0, KvQ8_0)
#undef CQIL_KV_FORMAT
  k.matmul = &matmul;
  k.rms_norm = &rms_norm;
  k.add = &add_to;
  k.silu_mul = &silu_mul;
  k.log_sum_exp = &log_sum_exp;
  return k;
}

}  // namespace CQIL_ISA
}  // namespace cqil
