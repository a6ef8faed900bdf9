// Gives the log-sum-exp of a row of logits and the highest few, by which the host samples or the device goes on. Bytes:
// the row once. A block holds a slice in shared memory and gives its highest `count`; the block that arrives last
// merges these in the same way (common/shortlist.cuh). Ties go to the lowest id. What is not finite makes the
// log-sum-exp NaN, and NaN counts as minus infinity in the list. The slices, and the order of every sum, depend on the
// vocabulary alone, so that the result does not depend on the grid.
#pragma once
#include "common/shortlist.cuh"
#include "launch.h"

namespace cqil::cuda {

// What the slices leave: `count` candidates of each, rank by rank, and after the room for those, of each the maximum
// and the sum of exponentials below it.
__device__ __forceinline__ Candidate* slice_candidates(const DeviceWorkspace& s) {
  return reinterpret_cast<Candidate*>(s.select_partials);
}
__device__ __forceinline__ float* slice_sums(const DeviceWorkspace& s) {
  return s.select_partials + 2 * kSelectSlices * CQIL_MAX_SHORTLIST;
}

__device__ __forceinline__ void select_slice(const DeviceWorkspace& s, int slice, int slices, int first, int n,
                                             int count) {
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
  Candidate* to = slice_candidates(s) + slice;
  for_ranks(room.here, found, [&](Candidate one, int better) {
    if (better < count) to[better * slices] = one;
  });
  if (static_cast<int>(threadIdx.x) >= found && static_cast<int>(threadIdx.x) < count) to[threadIdx.x * slices] = 0;
  if (threadIdx.x == 0) slice_sums(s)[2 * slice] = highest, slice_sums(s)[2 * slice + 1] = sum;
}

// By one warp.
__device__ __forceinline__ double log_sum_exp(const DeviceWorkspace& s, int slices, float highest) {
  double sum = 0;
  for (int slice = lane_id(); slice < slices; slice += kWarpSize) {
    const float* of = slice_sums(s) + 2 * slice;
    sum += static_cast<double>(load_fresh(of + 1)) *
           exp(static_cast<double>(load_fresh(of)) - static_cast<double>(highest));
  }
  CQIL_UNROLL for (int mask = kWarpSize / 2; mask > 0; mask /= 2) sum += shuffle_xor(sum, mask);
  return static_cast<double>(highest) + log(sum);
}

__device__ __forceinline__ void merge_slices(const DeviceWorkspace& s, int slices, int count) {
  cqil_shortlist* out = s.shortlist;
  const int n = slices * count;
  ShortlistRoom room = shortlist_room(n);
  for_own(n, [&](int i) { room.here[i] = load_fresh(slice_candidates(s) + i); });
  const int found = narrow(room, n, count, [] {});
  for_ranks(room.here, found, [&](Candidate one, int better) {
    if (better < count) out->logits[better] = logit_of(one), out->ids[better] = id_of(one);
  });
  // The last warp has the least to rank.
  if (warp_id() != kWarps - 1) return;
  const double all = log_sum_exp(s, slices, logit_of(room.state->highest));
  if (lane_id() == 0) out->log_sum_exp = all, out->count = count;
}

// Row 0 of the logits, as many as the token wants. wait() returns when they are there.
template <class Wait>
__device__ __forceinline__ void select_phase(const Step& step, int token, Wait wait) {
  wait();
  const DeviceWorkspace& s = step.workspace;
  const int vocab = step.model.vocab_size;
  const int count = min(load_fresh(&s.inputs->tokens[token].listed), vocab);
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
    last = arrive(s.grid_arrivals + kSelectArrivals, 1) == static_cast<uint32_t>(blocks - 1);
    if (last) s.grid_arrivals[kSelectArrivals] = 0;
  }
  sync_block();
  if (last) merge_slices(s, slices, count);
}

}  // namespace cqil::cuda
