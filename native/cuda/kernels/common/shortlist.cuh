// The highest few of many candidates, by one block. Candidates are dealt to groups, of which there are more than are
// wanted. The best of the groups are ranked by counting who is better; no candidate below the last wanted of them can
// be wanted. What is left is hardly more than what is wanted, and is ranked by counting too. The steps are a handful
// whatever the values, ties included: the order is total. Only where few groups hold most of what is wanted is a round
// more needed, and each leaves fewer.
#pragma once
#include "block.cuh"

namespace cqil::cuda {

// A logit and its id as one number: higher for a higher logit, then for a lower id. NaN counts as minus infinity, zeros
// are equal. 0 is no candidate.
using Candidate = uint64_t;
__device__ __forceinline__ Candidate candidate(float logit, int id) {
  const uint32_t bits = bits_from_float(logit == logit ? logit + 0.0f : -INFINITY);
  const uint32_t order = bits ^ (bits >> 31 ? 0xffffffffu : 0x80000000u);
  return static_cast<uint64_t>(order) << 32 | ~static_cast<uint32_t>(id);
}
__device__ __forceinline__ float logit_of(Candidate c) {
  const auto order = static_cast<uint32_t>(c >> 32);
  return float_from_bits(order ^ (order >> 31 ? 0x80000000u : 0xffffffffu));
}
__device__ __forceinline__ int id_of(Candidate c) { return static_cast<int>(~static_cast<uint32_t>(c)); }

// Four neighbouring lanes have a group between them: every kGroups-th candidate.
constexpr int kSharers = 4;
constexpr int kGroups = kThreads / kSharers;
static_assert(kGroups >= CQIL_MAX_SHORTLIST, "the best of the groups are as many as are wanted");
// With more candidates than this a round leaves fewer: as many groups as are wanted, less than n / kGroups + 1 of each.
constexpr int kFewCandidates = 2 * kGroups;
static_assert(CQIL_MAX_SHORTLIST * 3 <= kFewCandidates, "a round leaves fewer");

// What a block's threads tell each other, before the candidates.
struct ShortlistState {
  Candidate best_of[kGroups];
  Candidate least, highest;
  int found, last;
};

static_assert(sizeof(ShortlistState) <= 4 * kSelectHeader, "the candidates come after it");

// Candidates in the block's shared memory, and as much room again for what rounds leave.
struct ShortlistRoom {
  ShortlistState* state;
  Candidate *here, *there;
};
__device__ __forceinline__ ShortlistRoom shortlist_room(int n) {
  auto* here = reinterpret_cast<Candidate*>(scratch_floats() + kSelectHeader);
  return {reinterpret_cast<ShortlistState*>(scratch_floats()), here, here + n};
}

// Gives each(i) the thread's own of n candidates: those of its group in turns of kThreads, four lanes' a few banks
// apart.
template <class Each>
__device__ __forceinline__ void for_own(int n, Each each) {
  const int sharer = static_cast<int>(threadIdx.x) % kSharers, group = static_cast<int>(threadIdx.x) / kSharers;
  const int place = group + kSharers * sharer;
  CQIL_UNROLL_FEW for (int i = kGroups * sharer + (place < kGroups ? place : place - kGroups); i < n; i += kThreads)
      each(i);
}

// Gives each(candidate, how many of the n are better), in one thread for each of n.
template <class Each>
__device__ __forceinline__ void for_ranks(const Candidate* of, int n, Each each) {
  const int sharer = lane_id() % kSharers;
  for (int first = warp_id() * (kWarpSize / kSharers); first < n; first += kGroups) {
    const int i = first + lane_id() / kSharers;
    const Candidate mine = i < n ? of[i] : ~Candidate{0};
    int better = 0;
    for (int other = sharer; other < n; other += kSharers) better += of[other] > mine;
    better += shuffle_xor(better, 1);
    better += shuffle_xor(better, 2);
    if (sharer == 0 && i < n) each(mine, better);
  }
}

// Leaves those that may be among the `count` highest of room.here's first n, kFewCandidates at most, in room.here, and
// returns how many. Each thread has written its own of them. After the first round the highest is in the state, the
// candidates are still there too, and round_over() is called. Blocks meet before the room is used again.
template <class RoundOver>
__device__ __forceinline__ int narrow(ShortlistRoom& room, int n, int count, RoundOver round_over) {
  ShortlistState& state = *room.state;
  for (bool first = true;; first = false) {
    Candidate best = 0;
    for_own(n, [&](int i) { best = room.here[i] > best ? room.here[i] : best; });
    CQIL_UNROLL for (int mask = 1; mask < kSharers; mask *= 2) {
      const Candidate other = shuffle_xor(best, mask);
      best = other > best ? other : best;
    }
    if (lane_id() % kSharers == 0) state.best_of[static_cast<int>(threadIdx.x) / kSharers] = best;
    if (threadIdx.x == 0) state.least = 1;
    sync_block();
    if (threadIdx.x == 0) state.found = 0;
    for_ranks(state.best_of, kGroups, [&](Candidate one, int better) {
      if (better == 0) state.highest = one;
      if (better == count - 1 && one != 0) state.least = one;
    });
    sync_block();
    const Candidate least = state.least;
    for_own(n, [&](int i) {
      if (room.here[i] >= least) room.there[add_shared(&state.found, 1)] = room.here[i];
    });
    sync_block();
    n = state.found;
    if (first) round_over();
    Candidate* left = room.there;
    room.there = room.here, room.here = left;
    if (n <= kFewCandidates) return n;
  }
}

}  // namespace cqil::cuda
