// Gives the log-sum-exp of a row of logits and the highest few, by which the host samples or the device goes on. Bytes:
// the row once. A block holds a slice in shared memory and gives its highest `count` by as many rounds of a maximum, as
// it is small; the block that arrives last merges the sorted lists in the same way. Ties go to the lowest id. What is
// not finite makes the log-sum-exp NaN, and NaN counts as minus infinity in the list. The slices depend on the
// vocabulary alone, so that the result does not depend on the grid.
#pragma once
#include "common/block.cuh"
#include "launch.h"

namespace cqil::cuda {

constexpr int kShortestSlice = 512;

struct Candidate {
  float logit;
  int id;
};
__device__ __forceinline__ bool better(const Candidate& a, const Candidate& b) {
  return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
}

// The best candidate of the block, in every thread. Calls in a row pass turns 0 and 1.
__device__ __forceinline__ Candidate block_best(Candidate mine, int turn) {
  float* scratch = reduce_floats() + 2 * kWarps * (turn & 1);
  CQIL_UNROLL for (int mask = kWarpSize / 2; mask > 0; mask /= 2) {
    const Candidate other = {shuffle_xor(mine.logit, mask), shuffle_xor(mine.id, mask)};
    if (better(other, mine)) mine = other;
  }
  if (lane_id() == 0) {
    scratch[2 * warp_id()] = mine.logit;
    reinterpret_cast<int*>(scratch)[2 * warp_id() + 1] = mine.id;
  }
  sync_block();
  Candidate best = {scratch[0], reinterpret_cast<int*>(scratch)[1]};
  for (int i = 1; i < kWarps; i++) {
    const Candidate other = {scratch[2 * i], reinterpret_cast<int*>(scratch)[2 * i + 1]};
    if (better(other, best)) best = other;
  }
  return best;
}

__device__ __forceinline__ Candidate no_candidate() { return {-INFINITY, 0x7fffffff}; }

// Maximum, sum of exponentials below it, and the best of logits[first, end) to `to`.
__device__ __forceinline__ void select_slice(const float* logits, int first, int end, int count, float* to) {
  float* held = scratch_floats();
  float sum = 0;
  for (int i = first + static_cast<int>(threadIdx.x); i < end; i += kThreads) {
    const float logit = load_fresh(logits + i);
    held[i - first] = logit != logit ? -INFINITY : logit;
    sum = fmaf(logit, 0.0f, sum);  // still 0, or NaN
  }
  sync_block();
  float highest = 0;
  for (int round = 0; round < count && round < end - first; round++) {
    Candidate mine = no_candidate();
    for (int i = first + static_cast<int>(threadIdx.x); i < end; i += kThreads) {
      const Candidate one = {held[i - first], i};  // NaN where taken: never better
      if (better(one, mine)) mine = one;
    }
    const Candidate best = block_best(mine, round);
    if (round == 0) {
      highest = best.logit;
      for (int i = first + static_cast<int>(threadIdx.x); i < end; i += kThreads)
        if (held[i - first] > -INFINITY) sum += expf(held[i - first] - highest);
    }
    if (threadIdx.x == 0) {
      to[2 + round] = best.logit;
      reinterpret_cast<int*>(to)[2 + CQIL_MAX_SHORTLIST + round] = best.id;
    }
    // Only the thread that found it looks at it again.
    const int at = best.id - first;
    if (best.id < end && at % kThreads == static_cast<int>(threadIdx.x)) held[at] = NAN;
  }
  sync_block();
  sum = block_sum(sum, 0);
  if (threadIdx.x == 0) to[0] = highest, to[1] = sum;
}

__device__ __forceinline__ void merge_slices(const Step& step, int slices, int length, int count) {
  const DeviceSession& s = step.session;
  cqil_shortlist* out = s.shortlist;
  // A thread has a slice, whose list is as long as the slice at most.
  const int slice = static_cast<int>(threadIdx.x), rest = step.model.vocab_size - slice * length;
  const int listed = min(count, min(length, rest));
  const float* from = s.select_partials + slice * kSelectStride;
  int taken = 0;
  for (int round = 0; round < count; round++) {
    Candidate mine = no_candidate();
    if (slice < slices && taken < listed)
      mine = {load_fresh(from + 2 + taken),
              load_fresh(reinterpret_cast<const int*>(from) + 2 + CQIL_MAX_SHORTLIST + taken)};
    const Candidate best = block_best(mine, round);
    if (mine.id == best.id) taken++;
    if (threadIdx.x == 0) out->logits[round] = best.logit, out->ids[round] = best.id;
  }
  if (threadIdx.x != 0) return;
  float highest = load_fresh(s.select_partials);
  for (int i = 1; i < slices; i++) highest = fmaxf(highest, load_fresh(s.select_partials + i * kSelectStride));
  double sum = 0;
  for (int i = 0; i < slices; i++) {
    const float* state = s.select_partials + i * kSelectStride;
    sum += static_cast<double>(load_fresh(state + 1)) *
           exp(static_cast<double>(load_fresh(state)) - static_cast<double>(highest));
  }
  out->log_sum_exp = static_cast<double>(highest) + log(sum);
  out->count = count;
}

// Row 0 of the logits. count >= 1. wait() returns when they are there.
template <class Wait>
__device__ __forceinline__ void select_phase(const Step& step, int count, Wait wait) {
  wait();
  const DeviceSession& s = step.session;
  const int vocab = step.model.vocab_size;
  if (count > vocab) count = vocab;
  const int each = (vocab + kSelectSlices - 1) / kSelectSlices, length = each < kShortestSlice ? kShortestSlice : each;
  const int slices = (vocab + length - 1) / length;
  const int blocks = static_cast<int>(gridDim.x) < slices ? static_cast<int>(gridDim.x) : slices;
  if (static_cast<int>(blockIdx.x) >= blocks) return;
  for (int slice = static_cast<int>(blockIdx.x); slice < slices; slice += blocks) {
    const int first = slice * length, end = first + length < vocab ? first + length : vocab;
    sync_block();
    select_slice(s.logits, first, end, count, s.select_partials + slice * kSelectStride);
  }
  fence();
  sync_block();
  uint32_t* last = reinterpret_cast<uint32_t*>(scratch_floats());
  if (threadIdx.x == 0) {
    *last = arrive(s.grid_arrivals + kSelectArrivals, 1) == static_cast<uint32_t>(blocks - 1);
    if (*last) s.grid_arrivals[kSelectArrivals] = 0;
  }
  sync_block();
  if (!*last) return;
  fence();
  sync_block();
  merge_slices(step, slices, length, count);
}

}  // namespace cqil::cuda
