// Products of weight rows with activations rounded to int8, written once over U32xN and F32xN, kLanes rows side by
// side, and compiled once per instruction set by the file that includes this one. That file defines CQIL_ISA (a
// namespace), CQIL_INT8_SETS and CQIL_INT8_TOKENS (sets of kLanes rows, and tokens, of the register tile of matmul),
// and CQIL_INT8_ASKS (see kAskedFor).
#pragma once
#include <type_traits>

#include "../int8_kernels.h"
#include "../formats/int8_formats.h"
#include "../kernels.h"
#include "../simd/prefetch.h"
#include "../simd/unroll.h"

namespace cqil {
namespace CQIL_ISA {

// ---- rounding ------------------------------------------------------------------------------------------------------

inline F32x16 magnitude(F32x16 v) { return max(v, sub(zero(), v)); }

inline bool all_finite(const float* x, int64_t n) {
  F32x16 sum = zero();
  for (int64_t i = 0; i < n; i += 16) sum = fma(load(x + i), zero(), sum);
  return reduce_add(sum) == 0.0f;
}

inline void int8_round(const float* x, int64_t n, uint8_t* to) {
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

// ---- interleaving --------------------------------------------------------------------------------------------------

template <class W>
void int8_interleave(const uint8_t* rows, int64_t row_bytes, int64_t n_rows, int64_t cols, uint8_t* to) {
  for (int64_t r = 0; r < n_rows; r += kLanes) {
    const int64_t n = n_rows - r < kLanes ? n_rows - r : kLanes;
    for (int64_t b = 0; b < cols / W::kBlock; b++) {
      const uint8_t* block = rows + r * row_bytes + b * W::kBytes;
      auto take = [&](const uint8_t* from, int bytes) {
        for (int64_t i = 0; i < n; i++) memcpy(to + i * bytes, from + i * row_bytes, static_cast<size_t>(bytes));
        memset(to + n * bytes, 0, static_cast<size_t>((kLanes - n) * bytes));
        to += kLanes * bytes;
      };
      if constexpr (W::kHalfAt >= 0) take(block + W::kHalfAt, 2);
      for (int k = 0; k < W::kBytes / 4; k++) take(block + W::word_at(k), 4);
    }
  }
}

// ---- products ------------------------------------------------------------------------------------------------------

template <class W>
inline int32_t less_of(const Int8Row& x, int64_t group) {
  return (W::kGroup == 32 ? x.less : x.less_by_16)[group];
}
template <class W>
inline float scale_of(const Int8Row& x, int64_t group) {
  return x.scale[group * W::kGroup / kInt8Block];
}
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

// Whether blocks further on are asked for, some bytes with each group: on Zen 5, where hardware prefetchers do not
// follow the words of large blocks, that takes a third off a token at Q4_K and Q6_K. They do follow small blocks, and
// on Zen 3 all of them.
template <class W>
constexpr bool kAskedFor = CQIL_INT8_ASKS && W::kBlock > 32;

// Calls f(group, total, scale, minimum) for the groups of a block, the first of which is group `first` of the rows;
// total is the exact sum of their products with x.
template <class W, class F>
CQIL_INLINE void each_total(Block<W> block, const Int8Row& x, int64_t first, F f) {
  W::each_group(block, [&](int i, const U32xN* w, const F32xN& scale, const F32xN& minimum) {
    const int64_t g = first + i;
    if constexpr (kAskedFor<W>) {
      constexpr int lines = Block<W>::kBytes / 64, groups = W::kBlock / W::kGroup;
      constexpr int64_t ahead = kStreams<W> == 1 ? kLoneBlockPrefetchBytes : kBlockPrefetchBytes;
      for (int line = lines * i / groups; line < lines * (i + 1) / groups; line++)
        prefetch(block.at + ahead + 64 * line);
    }
    const int32_t less = less_of<W>(x, g);
    Dot4<W> dot = begin<W>(less);
    CQIL_UNROLL for (int k = 0; k < W::kGroup / 4; k++) {
      add_dot4<W>(dot, prepare<W>(w[k]), splat_bytes(x.q + g * W::kGroup + 4 * k), k);
    }
    f(g, total<W>(dot, less), scale, minimum);
  });
}

// The products with x of N sets of kLanes rows, apart bytes from one to the next, in sum.
template <class W, int N>
CQIL_NOINLINE void int8_dot_sets(const uint8_t* rows, int64_t apart, int64_t cols, const Int8Row& row, F32xN* sum) {
  constexpr int64_t per_block = W::kBlock / W::kGroup;
  const Int8Row x = row;
  for (int s = 0; s < N; s++) sum[s] = broadcast_lanes(0);
  for (int64_t b = 0; b < cols / W::kBlock; b++) {
    const uint8_t* at = rows + b * Block<W>::kBytes;
    for (int s = 0; s < N; s++, at += apart) {
      F32xN so_far = sum[s];
      each_total<W>({at}, x, b * per_block,
                    [&](int64_t g, const U32xN& total, const F32xN& scale, const F32xN& minimum) {
                      so_far = add_group<W>(so_far, total, less_of<W>(x, g), scale_of<W>(x, g), scale, minimum);
                    });
      sum[s] = so_far;
    }
  }
}

// Takes sets in N runs side by side, and those that are left one at a time, and calls keep(set, sum) for each.
template <class W, int N, class Keep>
inline void int8_dot_runs(const uint8_t* interleaved, int64_t sets, int64_t cols, const Int8Row& x, Keep keep) {
  const int64_t set_bytes = cols / W::kBlock * Block<W>::kBytes, run = sets / N;
  F32xN sum[N];
  for (int64_t i = 0; i < run; i++) {
    int8_dot_sets<W, N>(interleaved + i * set_bytes, run * set_bytes, cols, x, sum);
    for (int s = 0; s < N; s++) keep(s * run + i, sum[s]);
  }
  for (int64_t set = run * N; set < sets; set++) {
    int8_dot_sets<W, 1>(interleaved + set * set_bytes, set_bytes, cols, x, sum);
    keep(set, sum[0]);
  }
}

template <class W>
void int8_matvec(const uint8_t* interleaved, int64_t n_rows, int64_t cols, const uint8_t* quantized, float* y) {
  const Int8Row x = int8_row(const_cast<uint8_t*>(quantized), cols);
  const int64_t sets = (n_rows + kLanes - 1) / kLanes;
  auto keep = [&](int64_t set, const F32xN& sum) {
    const int64_t r = set * kLanes;
    if (n_rows - r >= kLanes) store(y + r, sum);
    else store_partial(y + r, sum, static_cast<int>(n_rows - r));
  };
  // As many streams of memory as get most of its bandwidth, if each is long enough to be worth its start.
  const bool is_long = sets * (cols / W::kBlock) * Block<W>::kBytes >= kStreams<W> * kStreamBytes;
  if (is_long) int8_dot_runs<W, kStreams<W>>(interleaved, sets, cols, x, keep);
  else int8_dot_runs<W, 1>(interleaved, sets, cols, x, keep);
}

// ---- products of panels --------------------------------------------------------------------------------------------

// A panel holds, for each set of kLanes rows, its groups one after another: w[kGroup / 4], scale, and minimum where
// there is one.
template <class W>
constexpr int64_t kGroupBytes = kVectorBytes * (W::kGroup / 4 + (W::kHasMin ? 2 : 1));

template <class W>
void int8_unpack(const uint8_t* interleaved, int64_t n_rows, int64_t cols, uint8_t* panel) {
  const int64_t blocks = (n_rows + kLanes - 1) / kLanes * (cols / W::kBlock);
  for (int64_t b = 0; b < blocks; b++)
    W::each_group(Block<W>{interleaved + b * Block<W>::kBytes},
                  [&](int, const U32xN* w, const F32xN& scale, const F32xN& minimum) {
                    CQIL_UNROLL for (int k = 0; k < W::kGroup / 4; k++) store_lanes(panel + k * kVectorBytes, w[k]);
                    float* scales = reinterpret_cast<float*>(panel + W::kGroup / 4 * kVectorBytes);
                    store(scales, scale);
                    if constexpr (W::kHasMin) store(scales + kLanes, minimum);
                    panel += kGroupBytes<W>;
                  });
}

// Sets of kLanes rows of a panel. Each begins `bytes` bytes after the one before; the last may have fewer rows.
struct PanelSets {
  const uint8_t* first;
  int64_t bytes;
  int64_t n_rows;
};

// Groups [from, to) of rows of `cols` weights.
struct Groups {
  int64_t from, to, cols;
};

// Adds groups to the products y of S sets of rows with the first T tokens; sums begin at zero with group 0.
template <class W, int S, int T>
CQIL_NOINLINE void int8_tile(const PanelSets& sets, const TokenVectors<uint8_t>& x, const Groups& groups,
                             const Products& y) {
  Int8Row row[T];
  CQIL_UNROLL for (int t = 0; t < T; t++) {
    row[t] = int8_row(const_cast<uint8_t*>(x.first) + t * x.stride, groups.cols);
  }
  const bool whole = sets.n_rows == S * kLanes;
  const int last = static_cast<int>(sets.n_rows - (S - 1) * kLanes);
  F32xN sum[T][S];
  CQIL_UNROLL for (int t = 0; t < T; t++) {
    CQIL_UNROLL for (int s = 0; s < S; s++) {
      const float* at = y.first + t * y.stride + s * kLanes;
      sum[t][s] = groups.from == 0     ? broadcast_lanes(0)
                  : whole || s < S - 1 ? load_floats(at)
                                       : load_some_floats(at, last);
    }
  }
  for (int64_t g = groups.from; g < groups.to; g++) {
    const uint8_t* group = sets.first + g * kGroupBytes<W>;
    Dot4<W> dot[T][S];
    CQIL_UNROLL for (int t = 0; t < T; t++) {
      CQIL_UNROLL for (int s = 0; s < S; s++) dot[t][s] = begin<W>(less_of<W>(row[t], g));
    }
    CQIL_UNROLL for (int k = 0; k < W::kGroup / 4; k++) {
      Weights4<W> w[S];
      CQIL_UNROLL for (int s = 0; s < S; s++) w[s] = prepare<W>(load_lanes(group + s * sets.bytes + k * kVectorBytes));
      CQIL_UNROLL for (int t = 0; t < T; t++) {
        const U32xN bytes = splat_bytes(row[t].q + g * W::kGroup + 4 * k);
        CQIL_UNROLL for (int s = 0; s < S; s++) add_dot4<W>(dot[t][s], w[s], bytes, k);
      }
    }
    CQIL_UNROLL for (int s = 0; s < S; s++) {
      const float* scales = reinterpret_cast<const float*>(group + s * sets.bytes + W::kGroup / 4 * kVectorBytes);
      const F32xN scale = load_floats(scales), minimum = W::kHasMin ? load_floats(scales + kLanes) : broadcast_lanes(0);
      CQIL_UNROLL for (int t = 0; t < T; t++) {
        sum[t][s] = add_group<W>(sum[t][s], total<W>(dot[t][s], less_of<W>(row[t], g)), less_of<W>(row[t], g),
                                 scale_of<W>(row[t], g), scale, minimum);
      }
    }
  }
  CQIL_UNROLL for (int t = 0; t < T; t++) {
    CQIL_UNROLL for (int s = 0; s < S; s++) {
      float* at = y.first + t * y.stride + s * kLanes;
      if (whole || s < S - 1) store(at, sum[t][s]);
      else store_partial(at, sum[t][s], last);
    }
  }
}

// Columns of a panel that stay in the first cache while all tokens pass.
constexpr int64_t kInt8TileCols = 512;

template <class W, int S, int T>
inline void int8_tokens(const PanelSets& sets, TokenVectors<uint8_t> x, const Groups& groups, Products y) {
  for (; x.n >= T; x.n -= T) {
    int8_tile<W, S, T>(sets, x, groups, y);
    x.first += T * x.stride;
    y.first += T * y.stride;
  }
  // The last tokens, fewer than a tile's, together.
  if constexpr (T > 1)
    if (x.n > 0) int8_tokens<W, S, T - 1>(sets, x, groups, y);
}

template <class W>
void int8_matmul(const uint8_t* panel, int64_t n_rows, const TokenVectors<uint8_t>& x, int64_t cols,
                 const Products& y) {
  constexpr int64_t kSets = CQIL_INT8_SETS, kStep = kInt8TileCols / W::kGroup;
  const int64_t n_groups = cols / W::kGroup, set_bytes = n_groups * kGroupBytes<W>;
  for (int64_t from = 0; from < n_groups; from += kStep) {
    const Groups groups = {from, from + kStep < n_groups ? from + kStep : n_groups, cols};
    auto take = [&](auto sets, int64_t r) {
      const int64_t most = sets.value * kLanes;
      int8_tokens<W, sets.value, CQIL_INT8_TOKENS>(
          {panel + r / kLanes * set_bytes, set_bytes, n_rows - r < most ? n_rows - r : most}, x, groups,
          {y.first + r, y.stride});
    };
    int64_t r = 0;
    for (; n_rows - r > (kSets - 1) * kLanes; r += kSets * kLanes) take(std::integral_constant<int, kSets>(), r);
    for (; r < n_rows; r += kLanes) take(std::integral_constant<int, 1>(), r);
  }
}

// constexpr, so that no instruction of this set runs before dispatch has asked for it.
constexpr RoundedKernels make_int8_kernels(const char* name) {
  RoundedKernels k = {};
  k.name = name;
  k.direct = true;
  k.block = kInt8Block;
  k.row_multiple = kInt8Rows;
  k.panel_rows = kMostPanelRows;
  k.row_bytes = &int8_row_bytes;
  k.round = &int8_round;
#define CQIL_INT8_FORMAT(dtype, W)           \
  k.interleave[dtype] = &int8_interleave<W>; \
  k.matvec[dtype] = &int8_matvec<W>;         \
  k.unpack[dtype] = &int8_unpack<W>;         \
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
