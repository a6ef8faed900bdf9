// Products of weight rows with activations: packed rows with one vector (decode), unpacked rows with several (prefill).
#pragma once
#include <type_traits>
#include <utility>

#include "kernels.h"
#include "prefetch.h"
#include "unroll.h"
#include "weight_formats.h"

namespace cqil {
namespace CQIL_ISA {

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

// Weights whose product waits for memory rather than for arithmetic: R runs of rows are read side by side, each in order, which is what
// hardware prefetchers follow best, and more of them than one run would have at work.
template <class W>
constexpr bool kInRuns = W::kBytes >= W::kBlock;  // eight bits each or more

// R rows, row_bytes apart.
template <class W, int R>
inline void dot_rows(const uint8_t* rows, int64_t row_bytes, int64_t cols, const float* x, float* y) {
  F32x16 sum[R];
  CQIL_UNROLL for (int r = 0; r < R; r++) sum[r] = zero();
  const int64_t blocks = cols / W::kBlock;
  for (int64_t b = 0; b < blocks; b++) {
    const float* xb = x + b * W::kBlock;
    if constexpr (kInRuns<W>) {
      if (W::kBytes > 32 || b % 2 == 0)  // once for every 64 bytes, or a little more often
        CQIL_UNROLL for (int r = 0; r < R; r++) prefetch(rows + r * row_bytes + b * W::kBytes + kRunPrefetchBytes);
    } else {
      // Neighbouring rows: those after them follow in memory, and are asked for as these are read, as R streams within a page are more
      // than hardware prefetchers follow. Short rows are asked for several turns ahead, for memory is about that far away.
      const int64_t distance = R * row_bytes > kPrefetchBytes ? R * row_bytes : kPrefetchBytes;
      prefetch_range(rows + distance + b * R * W::kBytes, R * W::kBytes);
    }
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
  constexpr int R = CQIL_MATVEC_ROWS;
  const int64_t run = n_rows / R;
  if constexpr (kInRuns<W>) {
    for (int64_t i = 0; i < run; i++) {
      float sums[R];
      dot_rows<W, R>(rows + i * row_bytes, run * row_bytes, cols, x, sums);
      CQIL_UNROLL for (int r = 0; r < R; r++) y[r * run + i] = sums[r];
    }
  } else {
    for (int64_t i = 0; i < run; i++) dot_rows<W, R>(rows + i * R * row_bytes, row_bytes, cols, x, y + i * R);
  }
  for (int64_t r = run * R; r < n_rows; r++) dot_rows<W, 1>(rows + r * row_bytes, row_bytes, cols, x, y + r);
}

// Row by row, as they follow in memory. A block's runs come in order, and those of one block may lie in two chunks.
template <class W>
void unpack(const uint8_t* rows, int64_t row_bytes, int64_t n_rows, int64_t cols, float* panel) {
  const int64_t n = padded(cols), blocks = cols / W::kBlock;
  for (int64_t r = 0; r < n_rows; r++) {
    const uint8_t* row = rows + r * row_bytes;
    int64_t end = panel_chunk_end(0, n);
    float* to = panel + r * end;
    auto put = [&](int64_t c, F32x16 w) {
      if (c == end) {
        end = panel_chunk_end(c, n);
        to = panel + n_rows * c + r * (end - c);
      }
      store(to, w);
      to += 16;
    };
    for (int64_t b = 0; b < blocks; b++) {
      prefetch(row + b * W::kBytes + kPanelPrefetchBytes);
      each_run(W{row + b * W::kBytes}, [&](int i, F32x16 w) { put(b * W::kBlock + 16 * i, w); });
    }
    if constexpr (W::kBlock == 16)
      if (cols % 16) put(blocks * 16, W::partial(row + blocks * W::kBytes, static_cast<int>(cols % 16)));
  }
}

// ---- products of panels --------------------------------------------------------------------------------------------

// Adds a chunk of n columns to the sums of an R x T tile, the lanes of one register at a time: R x T sums of one register, R of w and one
// of x fill the register file of AVX2, where whole vectors would spill. Sums begin at zero with the first chunk, wait in carry and go to y
// with the last, when the other lanes are there. First and Last are known to the compiler, which saves a few branches per tile.
template <int R, int T, bool First, bool Last>
CQIL_NOINLINE void tile(const float* w, const float* x, int64_t x_stride, int64_t n, float* carry, float* y, int64_t y_stride) {
  CQIL_UNROLL for (int lane = 0; lane < 16; lane += kRegisterLanes) {
    const float *w_lane = w + lane, *x_lane = x + lane;
    float* carry_lane = carry + lane;
    Register sum[T][R];
    CQIL_UNROLL for (int t = 0; t < T; t++)
      CQIL_UNROLL for (int r = 0; r < R; r++) sum[t][r] = First ? zero_register() : load_register(carry_lane + 16 * (t * R + r));
    for (int64_t k = 0; k < n; k += 16) {
      Register wk[R];
      CQIL_UNROLL for (int r = 0; r < R; r++) wk[r] = load_register(w_lane + r * n + k);
      CQIL_UNROLL for (int t = 0; t < T; t++) {
        const Register xk = load_register(x_lane + t * x_stride + k);
        CQIL_UNROLL for (int r = 0; r < R; r++) sum[t][r] = fma_register(wk[r], xk, sum[t][r]);
      }
    }
    const bool done = Last && lane + kRegisterLanes == 16;
    CQIL_UNROLL for (int t = 0; t < T; t++) {
      F32x16 whole[R];
      CQIL_UNROLL for (int r = 0; r < R; r++) {
        if (done) whole[r] = with_last_register(carry + 16 * (t * R + r), sum[t][r]);
        else store_register(carry_lane + 16 * (t * R + r), sum[t][r]);
      }
      if (done) store_sums<R>(whole, y + t * y_stride);
    }
  }
}

// Rows that stay in the first cache, a chunk of their columns, while tokens pass: as many as 24 KiB hold, so that each token's chunk is
// fetched for more of them. And the tokens that pass before the next chunk, whose sums, like their own chunks, the second cache holds.
constexpr int64_t kGroupRows = 16, kBlockTokens = 8 * CQIL_TILE_TOKENS;
constexpr int64_t group_rows(int64_t n) { return n > kPanelCols && panel_chunk_end(0, n) == n ? kGroupRows / 2 : kGroupRows; }

// A chunk of n_rows <= kGroupRows rows and n_tokens <= T tokens.
template <int T>
inline void tile_rows(const float* w, int64_t n_rows, const float* x, int64_t x_stride, int64_t n_tokens, int64_t n, bool first, bool last,
                      float* carry, float* y, int64_t y_stride) {
  if constexpr (T > 1)  // the last tokens, fewer than a tile's, together
    if (n_tokens < T) return tile_rows<T - 1>(w, n_rows, x, x_stride, n_tokens, n, first, last, carry, y, y_stride);
  auto one = [&](auto rows, int64_t r) {
    constexpr int R = rows.value;
    const auto f = first ? last ? &tile<R, T, true, true> : &tile<R, T, true, false>
                         : last ? &tile<R, T, false, true> : &tile<R, T, false, false>;
    f(w + r * n, x, x_stride, n, carry + 16 * T * r, y + r, y_stride);
  };
  int64_t r = 0;
  for (; r + CQIL_TILE_ROWS <= n_rows; r += CQIL_TILE_ROWS) one(std::integral_constant<int, CQIL_TILE_ROWS>(), r);
  for (; r < n_rows; r++) one(std::integral_constant<int, 1>(), r);
}

inline void matmul(const float* panel, int64_t n_rows, const float* x, int64_t x_stride, int64_t n_tokens, int64_t n, float* y,
                   int64_t y_stride) {
  alignas(64) float carry[16 * kGroupRows * kBlockTokens];
  const int64_t group = group_rows(n);
  for (int64_t r = 0; r < n_rows; r += group) {
    const int64_t rows = group < n_rows - r ? group : n_rows - r;
    for (int64_t t0 = 0; t0 < n_tokens; t0 += kBlockTokens) {
      const int64_t end = t0 + kBlockTokens < n_tokens ? t0 + kBlockTokens : n_tokens;
      for (int64_t from = 0, to; from < n; from = to) {
        to = panel_chunk_end(from, n);
        const float* w = panel + n_rows * from + r * (to - from);
        for (int64_t t = t0; t < end; t += CQIL_TILE_TOKENS)
          tile_rows<CQIL_TILE_TOKENS>(w, rows, x + t * x_stride + from, x_stride, end - t, to - from, from == 0, to == n,
                                      carry + 16 * group * (t - t0), y + t * y_stride + r, y_stride);
      }
    }
  }
}

}  // namespace CQIL_ISA
}  // namespace cqil
