// Gives the log-sum-exp of a row of logits and the highest few, by which the host samples or the device goes on. Bytes:
// the row once. A block holds a slice in shared memory and gives its highest `count`; the block that arrives last
// merges these in the same way (common/shortlist.cuh). Ties go to the lowest id. What is not finite makes the
// log-sum-exp NaN, and NaN counts as minus infinity in the list. The slices, and the order of every sum, depend on the
// vocabulary alone, so that the result does not depend on the grid.
#pragma once
#include "common/kv_cache.cuh"
#include "common/shortlist.cuh"
#include "launch.h"

namespace cqil::cuda {

// A row of logits, what its slices leave (`count` candidates of each, rank by rank; the maximum and the sum of
// exponentials below it of each), and where its list goes.
struct Selection {
  const float* logits;
  Candidate* candidates;
  float* sums;
  cqil_shortlist* list;
};
__device__ __forceinline__ Selection selection_of(const Step& step, int head, int row) {
  const DeviceWorkspace& s = step.workspace;
  float* partials = s.select_partials + row * kSelectSlices * kSelectStride;
  return {s.logits + static_cast<int64_t>(row) * step.model.vocab_size, reinterpret_cast<Candidate*>(partials),
          partials + 2 * kSelectSlices * CQIL_MAX_SHORTLIST, s.shortlists + head};
}

__device__ __forceinline__ void select_slice(const Selection& s, int slice, int slices, int first, int n, int count) {
  ShortlistRoom room = shortlist_room(n);
  float sum = 0;
  for_own(n, [&](int i) {
    const float logit = load_fresh(s.logits + first + i);
    room.here[i] = candidate(logit, first + i);
    sum = fmaf(logit, 0.0f, sum);  // still 0, or NaN
  });
  float highest = 0;
  const int found = narrow(room, n, count, [&] {
    highest = logit_of(room.state->highest);
    for_own(n, [&](int i) { sum += expf(logit_of(room.here[i]) - highest); });
    sum = block_sum(sum, 0);
  });
  Candidate* to = s.candidates + slice;
  for_ranks(room.here, found, [&](Candidate one, int better) {
    if (better < count) to[better * slices] = one;
  });
  if (static_cast<int>(threadIdx.x) >= found && static_cast<int>(threadIdx.x) < count) to[threadIdx.x * slices] = 0;
  if (threadIdx.x == 0) s.sums[2 * slice] = highest, s.sums[2 * slice + 1] = sum;
}

// By one warp.
__device__ __forceinline__ double log_sum_exp(const Selection& s, int slices, float highest) {
  double sum = 0;
  for (int slice = lane_id(); slice < slices; slice += kWarpSize) {
    const float* of = s.sums + 2 * slice;
    sum += static_cast<double>(load_fresh(of + 1)) *
           exp(static_cast<double>(load_fresh(of)) - static_cast<double>(highest));
  }
  CQIL_UNROLL for (int mask = kWarpSize / 2; mask > 0; mask /= 2) sum += shuffle_xor(sum, mask);
  return static_cast<double>(highest) + log(sum);
}

__device__ __forceinline__ void merge_slices(const Selection& s, int slices, int count) {
  cqil_shortlist* out = s.list;
  const int n = slices * count;
  ShortlistRoom room = shortlist_room(n);
  for_own(n, [&](int i) { room.here[i] = load_fresh(s.candidates + i); });
  const int found = narrow(room, n, count, [] {});
  for_ranks(room.here, found, [&](Candidate one, int better) {
    if (better < count) out->logits[better] = logit_of(one), out->ids[better] = id_of(one);
  });
  // The last warp has the least to rank.
  if (warp_id() != kWarps - 1) return;
  const double all = log_sum_exp(s, slices, logit_of(room.state->highest));
  if (lane_id() == 0) out->log_sum_exp = all, out->count = count;
}

// Selects from row `row` of the logits, for head first_head + row. wait() returns when the logits are there.
template <class Wait>
__device__ __forceinline__ void select_phase(const Step& step, int first_head, int row, Wait wait) {
  wait();
  const DeviceInputs* inputs = step.workspace.inputs;
  const int vocab = step.model.vocab_size, token = token_of_head(step, first_head + row);
  const int count = min(load_fresh(&inputs->tokens[token].listed), vocab);
  if (count == 0) return;
  const Selection s = selection_of(step, first_head + row, row);
  uint32_t* arrivals = step.workspace.grid_arrivals + kSelectArrivals + row;
  const int length = select_length(vocab), slices = (vocab + length - 1) / length;
  const int blocks = static_cast<int>(gridDim.x) < slices ? static_cast<int>(gridDim.x) : slices;
  if (static_cast<int>(blockIdx.x) >= blocks) return;
  for (int slice = static_cast<int>(blockIdx.x); slice < slices; slice += blocks) {
    const int first = slice * length;
    sync_block();
    select_slice(s, slice, slices, first, min(length, vocab - first), count);
  }
  sync_block();
  int& last = shortlist_room(0).state->last;
  if (threadIdx.x == 0) {
    last = arrive(arrivals, 1) == static_cast<uint32_t>(blocks - 1);
    if (last) *arrivals = 0;
  }
  sync_block();
  if (last) merge_slices(s, slices, count);
}

}  // namespace cqil::cuda
