// Products of weight rows with activations rounded to int8, written once over U32xN and F32xN, kLanes rows side by side, and compiled
// once per instruction set by the file that includes this one. That file defines CQIL_ISA (a namespace) and CQIL_INT8_SETS and
// CQIL_INT8_TOKENS (sets of kLanes rows, and tokens, of the register tile of matmul).
#pragma once
#include "int8_kernels.h"
#include "int8_formats.h"
#include "prefetch.h"
#include "unroll.h"

namespace cqil {
namespace CQIL_ISA {

// ---- rounding ------------------------------------------------------------------------------------------------------

inline F32x16 magnitude(F32x16 v) { return max(v, sub(zero(), v)); }

inline bool all_finite(const float* x, int64_t n) {
  F32x16 sum = zero();
  for (int64_t i = 0; i < n; i += 16) sum = fma(load(x + i), zero(), sum);
  return reduce_add(sum) == 0.0f;
}

inline void int8_quantize(const float* x, int64_t n, uint8_t* to) {
  const Int8Row row = int8_row(to, n);
  const bool finite = all_finite(x, n);
  for (int64_t b = 0; b < n / kInt8Block; b++) {
    const F32x16 first = load(x + b * kInt8Block), second = load(x + b * kInt8Block + 16);
    const float highest = finite ? reduce_max(max(magnitude(first), magnitude(second))) : 0.0f;
    // Below that the inverse would overflow, and the block adds nothing to any sum that matters.
    const bool small = highest < 1e-30f;
    const F32x16 inverse = broadcast(small ? 0.0f : 127.0f / highest);
    const F32x16 q0 = finite ? round(mul(first, inverse)) : zero(), q1 = finite ? round(mul(second, inverse)) : zero();
    store_i8(reinterpret_cast<uint8_t*>(row.q) + b * kInt8Block, q0);
    store_i8(reinterpret_cast<uint8_t*>(row.q) + b * kInt8Block + 16, q1);
    const int32_t less0 = -static_cast<int32_t>(reduce_add(q0)), less1 = -static_cast<int32_t>(reduce_add(q1));
    row.less_by_16[2 * b] = less0;
    row.less_by_16[2 * b + 1] = less1;
    row.less[b] = less0 + less1;
    row.scale[b] = !finite ? NAN : small ? 0.0f : highest / 127.0f;
  }
}

// ---- products ------------------------------------------------------------------------------------------------------

template <class W>
inline int32_t less_of(const Int8Row& x, int64_t group) { return (W::kGroup == 32 ? x.less : x.less_by_16)[group]; }
template <class W>
inline float scale_of(const Int8Row& x, int64_t group) { return x.scale[group * W::kGroup / kInt8Block]; }
inline U32xN splat_bytes(const int8_t* four) {
  uint32_t word;
  memcpy(&word, four, 4);
  return splat(word);
}

// What one group adds to the sums of kLanes rows.
template <class W>
inline F32xN add_group(F32xN sum, const U32xN& total, int32_t less, float d, const F32xN& scale, const F32xN& minimum) {
  sum = fma(mul(to_float(total), broadcast_lanes(d)), scale, sum);
  if constexpr (W::kHasMin) sum = fma(broadcast_lanes(static_cast<float>(less) * d), minimum, sum);
  return sum;
}

// Calls f(block index, address, stride) for each block of n <= kLanes rows. Fewer rows are copied to where the missing ones can be
// zero.
template <class W, class F>
inline void each_block(const uint8_t* rows, int64_t stride, int64_t n, int64_t cols, F f) {
  if (n == kLanes) {
    for (int64_t b = 0; b < cols / W::kBlock; b++) f(b, rows + b * W::kBytes, stride);
    return;
  }
  uint8_t some[kLanes * W::kBytes] = {};
  for (int64_t b = 0; b < cols / W::kBlock; b++) {
    for (int64_t r = 0; r < n; r++) memcpy(some + r * W::kBytes, rows + r * stride + b * W::kBytes, W::kBytes);
    f(b, some, static_cast<int64_t>(W::kBytes));
  }
}

// Calls f(group, total, scale, minimum) for the groups of a block of kLanes rows, whose first is group `first` of the row; total is the
// exact sum of their products with x.
template <class W, class F>
inline void each_total(const uint8_t* block, int64_t stride, const Int8Row& x, int64_t first, F f) {
  if constexpr (kByRow<W>) {
    f(first, total_by_row(W{}, block, stride, x.q + first * W::kGroup), W::scale(block, stride), broadcast_lanes(0));
  } else {
    W::each_group(block, stride, [&](int i, const U32xN* w, const F32xN& scale, const F32xN& minimum) {
      const int64_t g = first + i;
      const int32_t less = less_of<W>(x, g);
      Dot4<W> dot = begin<W>(less);
      CQIL_UNROLL for (int k = 0; k < W::kGroup / 4; k++) add_dot4<W>(dot, prepare<W>(w[k]), splat_bytes(x.q + g * W::kGroup + 4 * k), k);
      f(g, total<W>(dot, less), scale, minimum);
    });
  }
}

// The products of n <= kLanes rows with x.
template <class W>
inline F32xN int8_dot_rows(const uint8_t* rows, int64_t stride, int64_t n, int64_t cols, const Int8Row& x) {
  constexpr int64_t per_block = W::kBlock / W::kGroup, row_share = W::kBytes / per_block;  // of a row, to a group
  constexpr int64_t share = kLanes * W::kBytes / per_block;
  F32xN sum = broadcast_lanes(0);
  each_block<W>(rows, stride, n, cols, [&](int64_t b, const uint8_t* block, int64_t apart) {
    each_total<W>(block, apart, x, b * per_block, [&](int64_t g, const U32xN& total, const F32xN& scale, const F32xN& minimum) {
      if constexpr (kLanesInRuns) {
        const int64_t at = per_block == 1 ? b * W::kBytes : (g - b * per_block) * row_share;
        if (static_cast<uint64_t>(at) % 64 < row_share)  // once for every 64 bytes, about
          CQIL_UNROLL for (int r = 0; r < kLanes; r++) prefetch(rows + r * stride + g * row_share + kRunPrefetchBytes);
      } else {
        // Beyond the rows side by side, the last of which would come late otherwise; with every group its share, as a block of 16 rows at
        // once would be more than can be on its way, and nothing would be computed meanwhile.
        prefetch_range(rows + kLanes * stride + kPrefetchBytes / 2 + g * share, share);
      }
      sum = add_group<W>(sum, total, less_of<W>(x, g), scale_of<W>(x, g), scale, minimum);
    });
  });
  return sum;
}

template <class W>
void int8_matvec(const uint8_t* rows, int64_t row_bytes, int64_t n_rows, int64_t cols, const uint8_t* quantized, float* y) {
  const Int8Row x = int8_row(const_cast<uint8_t*>(quantized), cols);
  const int64_t run = n_rows / kLanes;
  for (int64_t i = 0; i < run; i++) {
    if constexpr (kLanesInRuns) {
      float sums[kLanes];
      store(sums, int8_dot_rows<W>(rows + i * row_bytes, run * row_bytes, kLanes, cols, x));
      CQIL_UNROLL for (int r = 0; r < kLanes; r++) y[r * run + i] = sums[r];
    } else {
      store(y + i * kLanes, int8_dot_rows<W>(rows + i * kLanes * row_bytes, row_bytes, kLanes, cols, x));
    }
  }
  const int64_t done = run * kLanes, rest = n_rows - done;
  if (rest) store_partial(y + done, int8_dot_rows<W>(rows + done * row_bytes, row_bytes, rest, cols, x), static_cast<int>(rest));
}

// ---- products of panels --------------------------------------------------------------------------------------------

// A panel holds, for each set of kLanes rows, its groups one after another: w[kGroup / 4], scale, and minimum where there is one.
constexpr int64_t kVectorBytes = 4 * kLanes;
template <class W>
constexpr int64_t kGroupBytes = kVectorBytes * (W::kGroup / 4 + (W::kHasMin ? 2 : 1));

template <class W>
void int8_pack(const uint8_t* rows, int64_t row_bytes, int64_t n_rows, int64_t cols, uint8_t* panel) {
  for (int64_t r = 0; r < n_rows; r += kLanes) {
    const int64_t n = n_rows - r < kLanes ? n_rows - r : kLanes;
    each_block<W>(rows + r * row_bytes, row_bytes, n, cols, [&](int64_t, const uint8_t* block, int64_t stride) {
      W::each_group(block, stride, [&](int, const U32xN* w, const F32xN& scale, const F32xN& minimum) {
        CQIL_UNROLL for (int k = 0; k < W::kGroup / 4; k++) store_lanes(panel + k * kVectorBytes, w[k]);
        float* scales = reinterpret_cast<float*>(panel + W::kGroup / 4 * kVectorBytes);
        store(scales, scale);
        if constexpr (W::kHasMin) store(scales + kLanes, minimum);
        panel += kGroupBytes<W>;
      });
    });
  }
}

// Adds groups [from, to) to the products y of S sets of rows with T tokens; those of group 0 begin at zero.
template <class W, int S, int T>
inline void int8_tile(const uint8_t* panel, int64_t set_bytes, int64_t n_rows, const uint8_t* x, int64_t x_stride, int64_t cols,
                      int64_t from, int64_t to, float* y, int64_t y_stride) {
  Int8Row row[T];
  CQIL_UNROLL for (int t = 0; t < T; t++) row[t] = int8_row(const_cast<uint8_t*>(x) + t * x_stride, cols);
  const bool whole = n_rows == S * kLanes;
  const int last = static_cast<int>(n_rows - (S - 1) * kLanes);
  F32xN sum[T][S];
  CQIL_UNROLL for (int t = 0; t < T; t++)
    CQIL_UNROLL for (int s = 0; s < S; s++) {
      const float* at = y + t * y_stride + s * kLanes;
      sum[t][s] = from == 0 ? broadcast_lanes(0) : whole || s < S - 1 ? load_floats(at) : load_some_floats(at, last);
    }
  for (int64_t g = from; g < to; g++) {
    const uint8_t* group = panel + g * kGroupBytes<W>;
    Dot4<W> dot[T][S];
    CQIL_UNROLL for (int t = 0; t < T; t++)
      CQIL_UNROLL for (int s = 0; s < S; s++) dot[t][s] = begin<W>(less_of<W>(row[t], g));
    CQIL_UNROLL for (int k = 0; k < W::kGroup / 4; k++) {
      Weights4<W> w[S];
      CQIL_UNROLL for (int s = 0; s < S; s++) w[s] = prepare<W>(load_lanes(group + s * set_bytes + k * kVectorBytes));
      CQIL_UNROLL for (int t = 0; t < T; t++) {
        const U32xN bytes = splat_bytes(row[t].q + g * W::kGroup + 4 * k);
        CQIL_UNROLL for (int s = 0; s < S; s++) add_dot4<W>(dot[t][s], w[s], bytes, k);
      }
    }
    CQIL_UNROLL for (int s = 0; s < S; s++) {
      const float* scales = reinterpret_cast<const float*>(group + s * set_bytes + W::kGroup / 4 * kVectorBytes);
      const F32xN scale = load_floats(scales), minimum = W::kHasMin ? load_floats(scales + kLanes) : broadcast_lanes(0);
      CQIL_UNROLL for (int t = 0; t < T; t++)
        sum[t][s] = add_group<W>(sum[t][s], total<W>(dot[t][s], less_of<W>(row[t], g)), less_of<W>(row[t], g), scale_of<W>(row[t], g), scale, minimum);
    }
  }
  CQIL_UNROLL for (int t = 0; t < T; t++)
    CQIL_UNROLL for (int s = 0; s < S; s++) {
      float* at = y + t * y_stride + s * kLanes;
      if (whole || s < S - 1) store(at, sum[t][s]);
      else store_partial(at, sum[t][s], last);
    }
}

// Columns of a panel that stay in the first cache while all tokens pass.
constexpr int64_t kInt8TileCols = 512;

template <class W, int S, int T>
inline void int8_tokens(const uint8_t* panel, int64_t set_bytes, int64_t n_rows, const uint8_t* x, int64_t x_stride,
                        int64_t n_tokens, int64_t cols, int64_t from, int64_t to, float* y, int64_t y_stride) {
  for (; n_tokens >= T; n_tokens -= T) {
    int8_tile<W, S, T>(panel, set_bytes, n_rows, x, x_stride, cols, from, to, y, y_stride);
    x += T * x_stride;
    y += T * y_stride;
  }
  // The last tokens, fewer than a tile's, together.
  if constexpr (T > 1)
    if (n_tokens > 0)
      int8_tokens<W, S, T - 1>(panel, set_bytes, n_rows, x, x_stride, n_tokens, cols, from, to, y, y_stride);
}

template <class W>
void int8_matmul(const uint8_t* panel, int64_t n_rows, const uint8_t* x, int64_t x_stride, int64_t n_tokens, int64_t cols,
                 float* y, int64_t y_stride) {
  constexpr int64_t kSets = CQIL_INT8_SETS, kStep = kInt8TileCols / W::kGroup;
  const int64_t groups = cols / W::kGroup, set_bytes = groups * kGroupBytes<W>;
  for (int64_t from = 0; from < groups; from += kStep) {
    const int64_t to = from + kStep < groups ? from + kStep : groups;
    int64_t r = 0;
    for (; n_rows - r > (kSets - 1) * kLanes; r += kSets * kLanes) {
      const int64_t n = n_rows - r < kSets * kLanes ? n_rows - r : kSets * kLanes;
      int8_tokens<W, kSets, CQIL_INT8_TOKENS>(panel + r / kLanes * set_bytes, set_bytes, n, x, x_stride, n_tokens, cols, from, to,
                                              y + r, y_stride);
    }
    for (; r < n_rows; r += kLanes) {
      const int64_t n = n_rows - r < kLanes ? n_rows - r : kLanes;
      int8_tokens<W, 1, CQIL_INT8_TOKENS>(panel + r / kLanes * set_bytes, set_bytes, n, x, x_stride, n_tokens, cols, from, to,
                                          y + r, y_stride);
    }
  }
}

// constexpr, so that no instruction of this set runs before dispatch has asked for it.
constexpr Int8Kernels make_int8_kernels(const char* name) {
  Int8Kernels k = {};
  k.name = name;
  k.quantize = &int8_quantize;
#define CQIL_INT8_FORMAT(dtype, W)     \
  k.matvec[dtype] = &int8_matvec<W>;   \
  k.pack[dtype] = &int8_pack<W>;       \
  k.matmul[dtype] = &int8_matmul<W>;
  CQIL_INT8_FORMAT(CQIL_Q8_0, Int8Q8_0)
  CQIL_INT8_FORMAT(CQIL_Q4_0, Int8Q4_0)
  CQIL_INT8_FORMAT(CQIL_Q4_K, Int8Q4_K)
  CQIL_INT8_FORMAT(CQIL_Q6_K, Int8Q6_K)
#undef CQIL_INT8_FORMAT
  return k;
}

}  // namespace CQIL_ISA
}  // namespace cqil
