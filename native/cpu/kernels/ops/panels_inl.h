// Products of panels of weights with several vectors (prefill), written once over the values P that a panel holds:
//   Value             one of them, in memory
//   Values            a register of them: kStep columns, or kRegisterLanes of the sixteen lanes of kStep columns
//   load(from), multiply_add(w, x, sum)
//   kCols             columns of a chunk
#pragma once
#include <type_traits>

#include "../kernels.h"
#include "../simd/sums.h"
#include "../simd/unroll.h"

namespace cqil {
namespace CQIL_ISA {

// Adds a chunk of n columns to the sums of an R x T tile, the lanes of one register at a time: R x T sums of one
// register, R of w and one of x fill the register file of AVX2, where whole vectors would spill. Sums begin at zero
// with the first chunk, wait in carry and go to y with the last, when the other lanes are there. First and Last are
// known to the compiler, which saves a few branches per tile.
template <class P, int R, int T, bool First, bool Last>
CQIL_NOINLINE void tile(const typename P::Value* w, const typename P::Value* x, int64_t x_stride, int64_t n,
                        float* carry, const Products& y) {
  CQIL_UNROLL for (int lane = 0; lane < 16; lane += kRegisterLanes) {
    const typename P::Value *w_lane = w + lane, *x_lane = x + lane;
    float* carry_lane = carry + lane;
    Register sum[T][R];
    CQIL_UNROLL for (int t = 0; t < T; t++) {
      CQIL_UNROLL for (int r = 0; r < R; r++) {
        sum[t][r] = First ? zero_register() : load_register(carry_lane + 16 * (t * R + r));
      }
    }
    for (int64_t k = 0; k < n; k += P::kStep) {
      typename P::Values wk[R];
      CQIL_UNROLL for (int r = 0; r < R; r++) wk[r] = P::load(w_lane + r * n + k);
      CQIL_UNROLL for (int t = 0; t < T; t++) {
        const typename P::Values xk = P::load(x_lane + t * x_stride + k);
        CQIL_UNROLL for (int r = 0; r < R; r++) sum[t][r] = P::multiply_add(wk[r], xk, sum[t][r]);
      }
    }
    const bool done = Last && lane + kRegisterLanes == 16;
    CQIL_UNROLL for (int t = 0; t < T; t++) {
      F32x16 whole[R];
      CQIL_UNROLL for (int r = 0; r < R; r++) {
        if (done) whole[r] = with_last_register(carry + 16 * (t * R + r), sum[t][r]);
        else store_register(carry_lane + 16 * (t * R + r), sum[t][r]);
      }
      if (done) store_sums<R>(whole, y.first + t * y.stride);
    }
  }
}

// Rows that stay in the first cache, a chunk of their columns, while tokens pass: as many as 24 KiB hold, so that each
// token's chunk is fetched for more of them. And the tokens that pass before the next chunk, whose sums, like their own
// chunks, the second cache holds.
constexpr int64_t kGroupRows = 16, kBlockTokens = 8 * CQIL_TILE_TOKENS;
template <class P>
constexpr int64_t group_rows(int64_t n) {
  return n > P::kCols && panel_chunk_end(0, n, P::kCols) == n ? kGroupRows / 2 : kGroupRows;
}

// Columns of a panel: how many, and whether sums begin or end with them.
struct Chunk {
  int64_t n;
  bool first, last;
};

// A chunk of n_rows <= kGroupRows rows, with the first T tokens, or with all where there are fewer.
template <class P, int T>
inline void tile_rows(const typename P::Value* w, int64_t n_rows, const TokenVectors<typename P::Value>& x,
                      const Chunk& chunk, float* carry, const Products& y) {
  if constexpr (T > 1)  // the last tokens, fewer than a tile's, together
    if (x.n < T) return tile_rows<P, T - 1>(w, n_rows, x, chunk, carry, y);
  auto one = [&](auto rows, int64_t r) {
    constexpr int R = rows.value;
    const auto f = chunk.first  ? chunk.last ? &tile<P, R, T, true, true> : &tile<P, R, T, true, false>
                   : chunk.last ? &tile<P, R, T, false, true>
                                : &tile<P, R, T, false, false>;
    f(w + r * chunk.n, x.first, x.stride, chunk.n, carry + 16 * T * r, {y.first + r, y.stride});
  };
  int64_t r = 0;
  for (; r + CQIL_TILE_ROWS <= n_rows; r += CQIL_TILE_ROWS) one(std::integral_constant<int, CQIL_TILE_ROWS>(), r);
  for (; r < n_rows; r++) one(std::integral_constant<int, 1>(), r);
}

// y: the product of each row of the panel with each token's x[n], n a multiple of kStep.
template <class P>
inline void panel_matmul(const typename P::Value* panel, int64_t n_rows, const TokenVectors<typename P::Value>& x,
                         int64_t n, const Products& y) {
  alignas(64) float carry[16 * kGroupRows * kBlockTokens];
  const int64_t group = group_rows<P>(n);
  for (int64_t r = 0; r < n_rows; r += group) {
    const int64_t rows = group < n_rows - r ? group : n_rows - r;
    for (int64_t t0 = 0; t0 < x.n; t0 += kBlockTokens) {
      const int64_t end = t0 + kBlockTokens < x.n ? t0 + kBlockTokens : x.n;
      for (int64_t from = 0, to; from < n; from = to) {
        to = panel_chunk_end(from, n, P::kCols);
        const typename P::Value* w = panel + n_rows * from + r * (to - from);
        for (int64_t t = t0; t < end; t += CQIL_TILE_TOKENS)
          tile_rows<P, CQIL_TILE_TOKENS>(w, rows, {x.first + t * x.stride + from, x.stride, end - t},
                                         {to - from, from == 0, to == n}, carry + 16 * group * (t - t0),
                                         {y.first + t * y.stride + r, y.stride});
      }
    }
  }
}

struct FloatPanel {
  using Value = float;
  using Values = Register;
  static constexpr int64_t kStep = 16, kCols = kPanelCols;
  static inline Values load(const Value* from) { return load_register(from); }
  static inline Register multiply_add(const Values& w, const Values& x, const Register& sum) {
    return fma_register(w, x, sum);
  }
};

inline void matmul(const float* panel, int64_t n_rows, const TokenVectors<float>& x, int64_t n, const Products& y) {
  panel_matmul<FloatPanel>(panel, n_rows, x, n, y);
}

}  // namespace CQIL_ISA
}  // namespace cqil
