// Products of weight rows with vectors in shared memory: two rows a warp, float32 sums.
// Bytes: every weight once, as stored; x from shared memory, 4 bytes for each weight pair of the two rows. FLOPs: 2 per weight.
// The rows that a warp will multiply come through a ring of its own in shared memory, stage after stage, and are asked for before
// anything is known of x: while the phase before still runs, and then always as far ahead as the ring is long, which hides the
// latency of the memory as long as all warps of a multiprocessor together have some 30 KiB on their way. A value's sum runs over
// thread l's chunks l, l + 32, ... and then a butterfly: its order depends on the length alone, whatever grid, lanes, launches
// and ring the row is computed by.
#pragma once
#include "block.cuh"
#include "launch.h"
#include "weights.cuh"

namespace cqil::cuda {

struct Row {
  const uint8_t* data;
  const uint16_t* scales;
};

// f16 scales of one row in their plane, padded to 16 bytes.
__device__ __forceinline__ int scale_stride(const Matrix& w) { return (w.cols / (w.dtype == CQIL_Q6_K ? 256 : 32) + 7) / 8 * 8; }

__device__ __forceinline__ Row row_of(const Matrix& w, int row) {
  return {w.data + row * w.row_bytes, w.scales ? w.scales + static_cast<int64_t>(row) * scale_stride(w) : nullptr};
}

// Rows a and b of one format from the same weight on, in chunks.
struct Run {
  Row a, b;
  int dtype, chunks;
};

// work(an integral constant of this format). kPlain: it is none of 256 weights a block (DeviceModel::plain).
template <int D>
struct FormatTag {
  static constexpr int value = D;
};
template <bool kPlain, class Work>
__device__ __forceinline__ void with_format(int dtype, Work work) {
  switch (dtype) {
    case CQIL_F32: return work(FormatTag<CQIL_F32>{});
    case CQIL_F16: return work(FormatTag<CQIL_F16>{});
    case CQIL_BF16: return work(FormatTag<CQIL_BF16>{});
    case CQIL_Q8_0: return work(FormatTag<CQIL_Q8_0>{});
    case CQIL_Q4_0: return work(FormatTag<CQIL_Q4_0>{});
    default: break;
  }
  if constexpr (!kPlain) {
    if (dtype == CQIL_Q4_K) work(FormatTag<CQIL_Q4_K>{});
    else if (dtype == CQIL_Q5_K) work(FormatTag<CQIL_Q5_K>{});
    else work(FormatTag<CQIL_Q6_K>{});
  }
}

__device__ __forceinline__ int chunk_weights(int dtype) {
  return dtype == CQIL_F32 ? 4 : dtype == CQIL_F16 || dtype == CQIL_BF16 ? 8 : dtype == CQIL_Q8_0 ? 16 : 32;
}

// Rows r0 and r1 of w, weights first ... first + count - 1; first is a multiple of 1024. r1 may lie beyond the end and is then r0.
__device__ __forceinline__ Run run_of(const Matrix& w, int r0, int r1, int first, int count) {
  const int each = chunk_weights(w.dtype);
  Run run = {row_of(w, r0), row_of(w, r1 < w.rows ? r1 : r0), w.dtype, (count + each - 1) / each};
  if (first > 0) {
    const int chunk = first / each, block = w.dtype == CQIL_Q4_K ? 144 : w.dtype == CQIL_Q5_K ? 176 : 208;
    const int bytes = w.dtype >= CQIL_Q4_K ? chunk / 8 * block : 16 * chunk;
    run.a.data += bytes, run.b.data += bytes;
    if (w.scales) {
      const int scales = first / (w.dtype == CQIL_Q6_K ? 256 : 32);
      run.a.scales += scales, run.b.scales += scales;
    }
  }
  return run;
}
__device__ __forceinline__ Run run_of(const Matrix& w, int r0, int r1) { return run_of(w, r0, r1, 0, w.cols); }

struct RowSums {
  float of[kRows];
};

// `bytes` of a row in pieces of kPiece to `to`, as far as it reaches; by the threads from kFirst on of the warp, for both rows.
template <int kPieces, int kPiece>
__device__ __forceinline__ void copy_pieces(uint8_t* to, const uint8_t* a, const uint8_t* b, int from, int bytes) {
  CQIL_UNROLL for (int j = 0; j < (2 * kPieces + kWarpSize - 1) / kWarpSize; j++) {
    const int q = lane_id() + kWarpSize * j;
    const bool second = q >= kPieces;
    const int at = from + kPiece * (second ? q - kPieces : q);
    if (q >= 2 * kPieces || at >= bytes) continue;
    if (kPiece == 16) copy_async(to + kPiece * q, (second ? b : a) + at);
    else copy_async8(to + kPiece * q, (second ? b : a) + at);
  }
}

// The runs that one warp multiplies, in their order: runs(i) for 0 <= i < n.
template <bool kPlain, class Runs>
class RowStream {
 public:
  // ring: bytes of this warp.
  __device__ __forceinline__ RowStream(const Step& step, Runs runs, int n)
      : runs_(runs), n_(n), ring_bytes_(step.ring_bytes),
        ring_(reinterpret_cast<uint8_t*>(scratch_floats() + step.stage_floats) + warp_id() * step.ring_bytes) {}

  // Asks for as much of the first runs as the ring holds. Needs nothing that the phase before wrote.
  __device__ __forceinline__ void begin() {
    if (n_ == 0) return;
    ahead_ = runs_(0);
    with_format<kPlain>(ahead_.dtype, [&](auto format) { fill<decltype(format)::value>(); });
  }

  // The next run times x, which begins at the run's first weight. In every thread of the warp.
  __device__ __forceinline__ RowSums next(const SharedVector& x) {
    const Run run = runs_(taken_++);
    RowSums sums = {};
    with_format<kPlain>(run.dtype, [&](auto format) {
      constexpr int kFormat = decltype(format)::value;
      if (filled_ != kFormat) fill<kFormat>();  // the copies stop where the format changes
      sums = take<kFormat>(run.chunks, x);
    });
    return sums;
  }

 private:
  template <int D>
  using F = Format<D>;
  template <int D>
  static constexpr int kPartBytes = kRows * (F<D>::kRowBytes + F<D>::kScaleBytes);
  // Parts in a stage.
  template <int D>
  __device__ __forceinline__ int depth() const {
    return ring_bytes_ / (F<D>::kSlots * kPartBytes<D>);
  }

  template <int D>
  __device__ __forceinline__ void fill() {
    filled_ = D;
    slot_ = 0;
    uint8_t* slot = ring_;
    CQIL_NO_UNROLL for (int i = 0; i < F<D>::kSlots; i++, slot += depth<D>() * kPartBytes<D>) copy_stage<D>(slot);
  }

  // The stage after the last that was asked for, or nothing.
  template <int D>
  __device__ __forceinline__ void copy_stage(uint8_t* slot) {
    if (asked_ < n_ && ahead_.dtype == D) {
      const int row_bytes = F<D>::row_bytes(ahead_.chunks), scale_bytes = F<D>::scale_bytes(ahead_.chunks);
      CQIL_NO_UNROLL for (int i = 0; i < depth<D>(); i++, slot += kPartBytes<D>, part_++) {
        copy_pieces<F<D>::kRowBytes / 16, 16>(slot, ahead_.a.data, ahead_.b.data, part_ * F<D>::kRowBytes, row_bytes);
        if (F<D>::kScaleBytes == 0) continue;
        constexpr int kPiece = F<D>::kScaleBytes % 16 == 0 ? 16 : 8;
        copy_pieces<F<D>::kScaleBytes / kPiece, kPiece>(slot + kRows * F<D>::kRowBytes, reinterpret_cast<const uint8_t*>(ahead_.a.scales),
                                                        reinterpret_cast<const uint8_t*>(ahead_.b.scales), part_ * F<D>::kScaleBytes, scale_bytes);
      }
      if (part_ * kWarpSize >= ahead_.chunks) {
        part_ = 0;
        if (++asked_ < n_) ahead_ = runs_(asked_);
      }
    }
    commit_copies();
  }

  template <int D>
  __device__ __forceinline__ RowSums take(int chunks, const SharedVector& x) {
    float sums[kRows] = {};
    CQIL_NO_UNROLL for (int base = 0; base < chunks; base += depth<D>() * kWarpSize) {
      wait_copies<F<D>::kSlots - 1>();
      sync_warp();
      uint8_t* const slot = ring_ + slot_ * depth<D>() * kPartBytes<D>;
      const uint8_t* part = slot;
      CQIL_NO_UNROLL for (int i = 0; i < depth<D>(); i++, part += kPartBytes<D>) {
        const int index = base + kWarpSize * i + lane_id();
        if (index >= chunks) break;
        const uint16_t* scales = reinterpret_cast<const uint16_t*>(part + kRows * F<D>::kRowBytes);
        const typename F<D>::Chunk chunk[kRows] = {F<D>::load(part, scales, lane_id()),
                                                   F<D>::load(part + F<D>::kRowBytes, scales + F<D>::kScaleBytes / 2, lane_id())};
        F<D>::add_dot(chunk, index, x, sums);
      }
      sync_warp();
      copy_stage<D>(slot);
      if (++slot_ == F<D>::kSlots) slot_ = 0;
    }
    return {{warp_sum(sums[0]), warp_sum(sums[1])}};
  }

  Runs runs_;
  int n_, ring_bytes_;
  uint8_t* ring_;
  Run ahead_ = {};      // of which the next stage is asked for
  int asked_ = 0;       // its index
  int part_ = 0;        // its parts that were asked for
  int taken_ = 0;       // runs
  int slot_ = 0;        // that holds the next stage
  int filled_ = -1;     // the format of what is in the ring
};

}  // namespace cqil::cuda
