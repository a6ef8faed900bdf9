// Products of attention_out and down whose rows, taken two by a warp, would leave most warps idle in the last round: a
// block takes whole pairs of rows, its warps take segments of them, and the segments' sums meet in shared memory. How a
// row is cut depends on the matrix's shape and format alone, and the sums are added in the order of the segments, so
// that the bits are the same for any grid and number of lanes.
#pragma once
#include "cut_shape.h"
#include "stage.cuh"

namespace cqil::cuda {

// What a block has to do: pairs of rows from blockIdx.x on, gridDim.x apart, in rounds of as many as there is room for
// sums of. In a round come lane after lane, of a lane piece after piece of its vector, as far as it is staged, and of a
// piece pair after pair; its warps take the segments of all these in turn.
struct CutWork {
  LaneRange lanes;
  int pairs, per_round;  // no more in a round than there are threads for
  int cols, shift;       // of a row, and of its segments: 2^shift weights each
  int segments;          // of a row
  int per_piece;         // segments that are staged at a time

  __device__ __forceinline__ CutWork(const LaneRange& lanes, int dtype, int rows, int cols, bool whole)
      : lanes(lanes),
        per_round(kThreads / 2),
        cols(cols),
        shift(segment_shift(dtype, cols)),
        segments((cols + (1 << shift) - 1) >> shift),
        per_piece(whole ? segments : kPieceFloats >> shift) {
    const int beyond = (rows + 1) / 2 - 1 - static_cast<int>(blockIdx.x), grid = static_cast<int>(gridDim.x);
    // beyond / grid without an integer division, which takes longer.
    const int near = static_cast<int>(divide(static_cast<float>(beyond), static_cast<float>(grid)));
    pairs = beyond < 0 ? 0 : near + (near * grid <= beyond) + ((near + 1) * grid <= beyond);
    for (int sums = kPartialSums; sums < lanes.n_lanes * segments * per_round;) per_round /= 2;
  }
  __device__ __forceinline__ int pair(int j) const {
    return static_cast<int>(blockIdx.x) + j * static_cast<int>(gridDim.x);
  }
  // In the round that begins with the block's pair `begin`.
  __device__ __forceinline__ int pairs_from(int begin) const { return min(per_round, pairs - begin); }
  __device__ __forceinline__ int segments_in(int piece) const { return min(per_piece, segments - piece * per_piece); }
  __device__ __forceinline__ int first(int segment) const { return segment << shift; }
  __device__ __forceinline__ int count(int segment) const { return min(1 << shift, cols - first(segment)); }
};

// The warp's next segment in a piece: of pair j of the round, or of no pair when j is beyond the last.
struct CutItem {
  int j = 0, segment;

  // The first of a round.
  __device__ __forceinline__ explicit CutItem(const CutWork& work) : segment(warp_id()) { settle(work.segments_in(0)); }
  __device__ __forceinline__ void next(int segments) {
    segment += kWarps;
    settle(segments);
  }
  // Goes from a piece of `pairs` pairs and `segments` segments, where nothing is left, to the next.
  __device__ __forceinline__ void go_on(int pairs, int segments, int segments_there) {
    segment += (j - pairs) * segments;
    j = 0;
    settle(segments_there);
  }
  __device__ __forceinline__ void settle(int segments) {
    CQIL_NO_UNROLL while (segment >= segments) segment -= segments, j++;
  }
};

// All segments of a warp, in the order in which cut_products takes them.
template <class RunOf>
struct CutCursor {
  RunOf run_of;
  CutWork work;
  int begin = 0, lane, piece = 0;
  CutItem item;

  __device__ __forceinline__ CutCursor(RunOf run_of, const CutWork& work)
      : run_of(run_of), work(work), lane(work.lanes.first_lane), item(work) {
    settle();
  }
  __device__ __forceinline__ bool there() const { return begin < work.pairs; }
  __device__ __forceinline__ Run run() const {
    const int segment = piece * work.per_piece + item.segment;
    return run_of(lane, 2 * work.pair(begin + item.j), work.first(segment), work.count(segment));
  }
  __device__ __forceinline__ void next() {
    item.next(work.segments_in(piece));
    settle();
  }
  // On to the next piece, lane or round while nothing is left in this one.
  __device__ __forceinline__ void settle() {
    CQIL_NO_UNROLL while (there() && item.j >= work.pairs_from(begin)) {
      const int segments = work.segments_in(piece);
      if (++piece * work.per_piece >= work.segments) piece = 0, lane++;
      if (lane == work.lanes.first_lane + work.lanes.n_lanes) {
        lane = work.lanes.first_lane, begin += work.per_round;
        item = CutItem(work);
      } else {
        item.go_on(work.pairs_from(begin), segments, work.segments_in(piece));
      }
    }
  }
};

// For each row of the block, in one thread, finish(row, before(row), sum_of), where sum_of(lane) is the row of that
// lane's matrix times the lane's vector of `cols` floats, and before(row) is called as soon as the phase before has
// ended: its loads are back by the end. run_of(lane, row, first, count) is the run of rows row and row + 1 from weight
// `first` on, dtype_of(lane) the format of its matrix, and from(lane) the vector. Vectors that do not fit shared memory
// at once are staged one after the other, and one that does not fit at all piece by piece, for every round anew. wait()
// returns when the phase before has ended.
template <int kFormat, class RunOf, class DtypeOf, class From, class Wait, class Before, class Finish>
__device__ __forceinline__ void cut_products(const Step& step, const LaneRange& lanes, int rows, int cols, int stride,
                                             RunOf run_of, DtypeOf dtype_of, From from, Wait wait, Before before,
                                             Finish finish) {
  const int vector = staged_floats(stride);
  const bool whole = vector <= step.stage_floats, at_once = lanes.n_lanes * vector <= step.stage_floats;
  const CutWork work(lanes, kFormat, rows, cols, whole);
  const int place = whole ? stride : kPieceFloats;
  RowStream<kFormat, CutCursor<RunOf>> stream(step, CutCursor<RunOf>(run_of, work));
  stream.begin();
  wait();
  // The sums of pair j of lane l's segments in a round: two each.
  auto sums_of = [&](int l, int j) { return partial_sums() + 2 * (l * work.per_round + j) * work.segments; };
  CQIL_NO_UNROLL for (int begin = 0; begin < work.pairs; begin += work.per_round) {
    const int here = work.pairs_from(begin);
    // The row that this thread finishes.
    const int own = static_cast<int>(threadIdx.x) / 2, row = 2 * work.pair(begin + own) + lane_id() % 2;
    const bool mine = own < here && row < rows;
    const float start = mine ? before(row) : 0.0f;
    CutItem item(work);
    CQIL_NO_UNROLL for (int l = 0; l < lanes.n_lanes; l++) {
      CQIL_NO_UNROLL for (int piece = 0; piece * work.per_piece < work.segments; piece++) {
        if (!at_once || (begin == 0 && l == 0)) {
          if (begin > 0 || l > 0 || piece > 0) sync_block();
          const int first = work.first(piece * work.per_piece);
          stage_plain<kFormat>(at_once ? lanes.n_lanes : 1, whole ? cols : min(kPieceFloats, cols - first), place,
                               [&](int i) { return from(lanes.first_lane + l + i) + first; });
          sync_block();
        }
        const Staged<kFormat> x = staged_at<kFormat>(at_once ? l : 0, place);
        const int segments = work.segments_in(piece);
        CQIL_NO_UNROLL for (; item.j < here; item.next(segments)) {
          const int segment = piece * work.per_piece + item.segment;
          const RowSums sums =
              stream.next(dtype_of(lanes.first_lane + l), work.count(segment), x.from(work.first(item.segment) / 4));
          if (lane_id() < 2) sums_of(l, item.j)[2 * segment + lane_id()] = lane_id() ? sums.of[1] : sums.of[0];
        }
        item.go_on(here, segments, work.segments_in((piece + 1) * work.per_piece < work.segments ? piece + 1 : 0));
      }
    }
    sync_block();
    if (mine)
      finish(row, start, [&](int lane) {
        const float* sums = sums_of(lane - lanes.first_lane, own) + lane_id() % 2;
        float sum = 0;
        for (int segment = 0; segment < work.segments; segment++) sum += sums[2 * segment];
        return sum;
      });
    if (begin + work.per_round < work.pairs) sync_block();
  }
}

}  // namespace cqil::cuda
