// Sizes that kernels and the layout of caches and of scratch must agree on.
#pragma once
#include "../launch.h"

namespace cqil::cuda {

// Threads of a block of the one-token kernels.
constexpr int kThreads = 384;
constexpr int kWarps = kThreads / 32;

// Shared memory of the one-token kernels, in this order: room for reductions, of which the second part is for sums of
// pairs of row segments; staged vectors; and for each warp a ring of weights on their way. How large the last two are
// is in Step.
constexpr int kPartialSums = 512;
constexpr int kPartialsAt = 64;
constexpr int kReduceFloats = kPartialsAt + 2 * kPartialSums;
// Floats that a staged vector of n floats, a multiple of 32, takes at most (shared_vector.cuh), with a sum of squares
// for each 128.
CQIL_HOST_DEVICE constexpr int staged_floats(int n) { return n + (n / 128 + 32) / 32 * 32; }
// The pieces of a vector that is not staged whole: a multiple of 1024, so that the scales of every format begin at 8
// bytes.
constexpr int kPieceFloats = 8 * 1024;
// A ring of every weight format fits the shortest (weights.cuh); longer ones than the longest gain nothing.
constexpr int kLeastRing = 4224, kMostRing = 16 * 1024;

// Bytes of one head's keys or values at one position (kv_cache.cuh), a multiple of 16. head_stride: a multiple of 32.
CQIL_HOST_DEVICE constexpr int cache_row_bytes(int kv_dtype, int head_stride) {
  return kv_dtype == CQIL_F32   ? 4 * head_stride
         : kv_dtype == CQIL_F16 ? 2 * head_stride
                                : (head_stride + head_stride / 16 + 15) / 16 * 16;
}

// Attention: most splits of a context, and the floats before a split's values: maximum and sum.
constexpr int kMaxSplits = 64;
constexpr int kPartialHeader = 4;

// Selection: most slices of a row of logits and the shortest, the floats one leaves (candidates, maximum, sum), and the
// place of the rows' counters after the grid's, on another cache line.
constexpr int kSelectSlices = 64, kShortestSlice = 768;
constexpr int kSelectStride = 2 * CQIL_MAX_SHORTLIST + 2;
constexpr int kSelectArrivals = 32;
CQIL_HOST_DEVICE constexpr int select_length(int vocab) {
  return vocab <= kSelectSlices * kShortestSlice ? kShortestSlice : (vocab + kSelectSlices - 1) / kSelectSlices;
}
// Floats of shared memory that it needs after the room for reductions: what threads tell each other, and twice the
// candidates of a slice, or of all slices' lists, of two floats each.
constexpr int kSelectHeader = 256;
CQIL_HOST_DEVICE constexpr int64_t select_floats(int vocab) {
  constexpr int kListed = kSelectSlices * CQIL_MAX_SHORTLIST;
  return kSelectHeader + int64_t{4} * (select_length(vocab) > kListed ? select_length(vocab) : kListed);
}

}  // namespace cqil::cuda
