// Products of packed weight rows with one vector (decode), and rows unpacked to the panels that several are multiplied
// with (prefill).
#pragma once
#include <utility>

#include "../kernels.h"
#include "matvec_runs.h"
#include "../simd/prefetch.h"
#include "../simd/sums.h"
#include "../simd/unroll.h"
#include "../formats/weight_formats.h"

namespace cqil {
namespace CQIL_ISA {

// Adds part C of each row's block, and the parts after it. Rows take turns so that their sums, each a chain of
// dependent additions, run side by side.
template <class W, int C, int R>
inline void add_parts(const W (&blocks)[R], const float* x, F32x16* sum) {
  if constexpr (C < W::kParts) {
    CQIL_UNROLL for (int r = 0; r < R; r++) {
      blocks[r].template part<C>([&](int i, F32x16 w) { sum[r] = fma(w, load(x + 16 * i), sum[r]); });
    }
    add_parts<W, C + 1>(blocks, x, sum);
  }
}

template <class W, int... Row>
inline void add_block(const uint8_t* block, int64_t row_bytes, const float* x, F32x16* sum,
                      std::integer_sequence<int, Row...>) {
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

// Weights whose product waits for memory rather than for arithmetic, and that are read as matvec_runs.h says.
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
      // Neighbouring rows: those after them follow in memory, and are asked for as these are read, as R streams within
      // a page are more than hardware prefetchers follow. Short rows are asked for several turns ahead, for memory is
      // about that far away.
      const int64_t distance = R * row_bytes > kPrefetchBytes ? R * row_bytes : kPrefetchBytes;
      prefetch_range(rows + distance + b * R * W::kBytes, R * W::kBytes);
    }
    add_block<W>(rows + b * W::kBytes, row_bytes, xb, sum, std::make_integer_sequence<int, R>());
  }
  if constexpr (W::kBlock == 16) {
    const int rest = static_cast<int>(cols % 16);
    if (rest) CQIL_UNROLL for (int r = 0; r < R; r++) {
        sum[r] = fma(W::partial(rows + r * row_bytes + blocks * W::kBytes, rest), load(x + blocks * 16), sum[r]);
      }
  }
  store_sums<R>(sum, y);
}

template <class W>
void matvec(const uint8_t* rows, int64_t row_bytes, int64_t n_rows, int64_t cols, const float* x, float* y) {
  constexpr int R = CQIL_MATVEC_ROWS;
  if constexpr (kInRuns<W>) {
    matvec_runs<R>(rows, row_bytes, n_rows, y, [&](auto n, const uint8_t* first, int64_t apart, float* sums) {
      dot_rows<W, decltype(n)::value>(first, apart, cols, x, sums);
    });
  } else {
    int64_t r = 0;
    for (; r + R <= n_rows; r += R) dot_rows<W, R>(rows + r * row_bytes, row_bytes, cols, x, y + r);
    for (; r < n_rows; r++) dot_rows<W, 1>(rows + r * row_bytes, row_bytes, cols, x, y + r);
  }
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

}  // namespace CQIL_ISA
}  // namespace cqil
