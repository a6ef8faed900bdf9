// Sizes that kernels and the layout of a session's scratch must agree on.
#pragma once
#include "launch.h"

namespace cqil::cuda {

// Shared memory of the one-token kernels: the staged vectors, then room for reductions. These 96 KiB fit every GPU from compute
// capability 8.0 on.
constexpr int kStageFloats = 24 * 1024;
constexpr int kReduceFloats = 64;
constexpr int kSharedBytes = (kStageFloats + kReduceFloats) * 4;
// The longest vector that must be staged in one piece, beside one head.
constexpr int kMaxStaged = kStageFloats - 256;

// Attention: most splits of a context, and the floats before a split's values: maximum and sum.
constexpr int kMaxSplits = 64;
constexpr int kPartialHeader = 4;

// Selection: most slices of a row of logits, the floats one leaves (maximum, sum, logits, ids), and its counter's place after
// the grid's, on another cache line.
constexpr int kSelectSlices = 128;
constexpr int kSelectStride = 2 + 2 * CQIL_MAX_SHORTLIST;
constexpr int kSelectArrivals = 32;

}  // namespace cqil::cuda
