// Products of weight rows with vectors in shared memory: two rows a warp, whose sums are float32 over chunks of weights
// that were floats, and over exact sums of integers of each chunk that was quantized. Bytes: every weight once, as
// stored; x from shared memory for both rows at once. FLOPs: 2 per weight. The rows that a warp will multiply come
// through a ring of its own in shared memory, stage after stage, and are asked for before anything is known of x: while
// the phase before still runs, and then always as far ahead as the ring is long, which hides the latency of the memory
// as long as all warps of a multiprocessor together have some 30 KiB on their way. A value's sum runs over thread l's
// chunks l, l + 32, ... and then a butterfly: its order depends on the length alone, whatever grid, lanes, launches and
// ring the row is computed by.
#pragma once
#include "block.cuh"
#include "../launch.h"
#include "weights.cuh"

namespace cqil::cuda {

struct Row {
  const uint8_t* data;
  const uint16_t* scales;
};

// f16 scales of one row of `cols` weights in their plane, padded to 16 bytes.
__device__ __forceinline__ int scale_stride(int dtype, int cols) {
  return (cols / (dtype == CQIL_Q6_K ? 256 : 32) + 7) / 8 * 8;
}
__device__ __forceinline__ bool has_scales(int dtype) {
  return dtype == CQIL_Q8_0 || dtype == CQIL_Q4_0 || dtype == CQIL_Q6_K;
}

// Rows a and b of one format from the same weight on, in chunks.
struct Run {
  Row a, b;
  int dtype, chunks;
};

// Kernels are compiled for one weight format each, and once for any: code that is run once is fetched once, and a phase
// of one token waits for that longer than for anything else when it is a few thousand instructions long.
constexpr int kAnyFormat = -1;

// work(an integral constant of this format).
template <int D>
struct FormatTag {
  static constexpr int value = D;
};
template <int kFormat, class Work>
__device__ __forceinline__ void with_format(int dtype, Work work) {
  if constexpr (kFormat != kAnyFormat) {
    work(FormatTag<kFormat>{});
  } else {
    switch (dtype) {
      case CQIL_F32: return work(FormatTag<CQIL_F32>{});
      case CQIL_F16: return work(FormatTag<CQIL_F16>{});
      case CQIL_BF16: return work(FormatTag<CQIL_BF16>{});
      case CQIL_Q8_0: return work(FormatTag<CQIL_Q8_0>{});
      case CQIL_Q4_0: return work(FormatTag<CQIL_Q4_0>{});
      case CQIL_Q4_K: return work(FormatTag<CQIL_Q4_K>{});
      case CQIL_Q5_K: return work(FormatTag<CQIL_Q5_K>{});
      default: return work(FormatTag<CQIL_Q6_K>{});
    }
  }
}

// How the kernels of a format stage vectors.
template <int kFormat>
struct StagedFor {
  using Vector = typename Format<kFormat>::Staged;
};
template <>
struct StagedFor<kAnyFormat> {
  using Vector = StagedFixed;
};
template <int kFormat>
using Staged = typename StagedFor<kFormat>::Vector;

__device__ __forceinline__ int chunk_weights(int dtype) {
  return dtype == CQIL_F32 ? 4 : dtype == CQIL_F16 || dtype == CQIL_BF16 ? 8 : dtype == CQIL_Q8_0 ? 16 : 32;
}
// A matrix's format, known to the compiler where the kernel is one format's: no division then remains below.
template <int kFormat>
__device__ __forceinline__ int format_of(const Matrix& w) {
  return kFormat == kAnyFormat ? w.dtype : kFormat;
}

template <int kFormat>
__device__ __forceinline__ Row row_of(const Matrix& w, int row) {
  const int dtype = format_of<kFormat>(w);
  return {w.data + row * w.row_bytes,
          has_scales(dtype) ? w.scales + static_cast<int64_t>(row) * scale_stride(dtype, w.cols) : nullptr};
}

// Rows r0 and r1 of w, weights first ... first + count - 1; first is a multiple of 1024. r1 may lie beyond the end and
// is then r0.
template <int kFormat>
__device__ __forceinline__ Run run_of(const Matrix& w, int r0, int r1, int first, int count) {
  const int dtype = format_of<kFormat>(w), each = chunk_weights(dtype);
  Run run = {row_of<kFormat>(w, r0), row_of<kFormat>(w, r1 < w.rows ? r1 : r0), dtype, (count + each - 1) / each};
  if (first > 0) {
    const int chunk = first / each, block = dtype == CQIL_Q4_K ? 144 : dtype == CQIL_Q5_K ? 176 : 208;
    const int bytes = dtype >= CQIL_Q4_K ? chunk / 8 * block : 16 * chunk;
    run.a.data += bytes, run.b.data += bytes;
    if (has_scales(dtype)) {
      const int scales = first / (dtype == CQIL_Q6_K ? 256 : 32);
      run.a.scales += scales, run.b.scales += scales;
    }
  }
  return run;
}
template <int kFormat>
__device__ __forceinline__ Run run_of(const Matrix& w, int r0, int r1) {
  return run_of<kFormat>(w, r0, r1, 0, w.cols);
}

struct RowSums {
  float of[kRows];
};

// Copies kPieces pieces of kPiece bytes of both rows from byte `from` on, as far as they reach, to `to`, one row behind
// the other.
template <int kPieces, int kPiece>
__device__ __forceinline__ void copy_pieces(uint8_t* to, const uint8_t* a, const uint8_t* b, int from, int bytes) {
  auto copy = [&](int q, const uint8_t* row, int at) {
    if (at >= bytes) return;
    if (kPiece == 16) copy_async(to + kPiece * q, row + at);
    else copy_async8(to + kPiece * q, row + at);
  };
  if constexpr (kPieces % kWarpSize == 0) {
    CQIL_UNROLL for (int j = 0; j < kPieces / kWarpSize; j++) {
      const int q = lane_id() + kWarpSize * j;
      copy(q, a, from + kPiece * q);
      copy(q + kPieces, b, from + kPiece * q);
    }
  } else {
    CQIL_UNROLL for (int j = 0; j < (2 * kPieces + kWarpSize - 1) / kWarpSize; j++) {
      const int q = lane_id() + kWarpSize * j;
      const bool second = q >= kPieces;
      if (q < 2 * kPieces) copy(q, second ? b : a, from + kPiece * (second ? q - kPieces : q));
    }
  }
}

// The runs that one warp multiplies, in the order of a Cursor: there() says whether it is at one, run() which, and
// next() goes on.
template <int kFormat, class Cursor>
class RowStream {
 public:
  __device__ __forceinline__ RowStream(const Step& step, const Cursor& cursor)
      : cursor_(cursor),
        ring_bytes_(step.ring_bytes),
        ring_(reinterpret_cast<uint8_t*>(scratch_floats() + step.stage_floats) + warp_id() * step.ring_bytes) {}

  // Asks for as much of the first runs as the ring holds. Needs nothing that the phase before wrote.
  __device__ __forceinline__ void begin() {
    if (!cursor_.there()) return;
    ahead_ = cursor_.run();
    with_format<kFormat>(ahead_.dtype, [&](auto format) { fill<decltype(format)::value>(); });
  }

  // The next run, which is of this format and of `count` weights, times x, which begins at its first weight. In every
  // thread of the warp.
  __device__ __forceinline__ RowSums next(int dtype, int count, const Staged<kFormat>& x) {
    RowSums sums = {};
    with_format<kFormat>(dtype, [&](auto format) {
      constexpr int D = decltype(format)::value;
      if constexpr (kFormat == kAnyFormat) {
        if (filled_ != D) fill<D>();  // the copies stop where the format changes
      }
      sums = take<D>((count + Format<D>::kWeights - 1) / Format<D>::kWeights, x);
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
    if (ahead_.dtype == D) {
      const int row_bytes = F<D>::row_bytes(ahead_.chunks), scale_bytes = F<D>::scale_bytes(ahead_.chunks);
      CQIL_NO_UNROLL for (int i = 0; i < depth<D>(); i++, slot += kPartBytes<D>, part_++) {
        copy_pieces<F<D>::kRowBytes / 16, 16>(slot, ahead_.a.data, ahead_.b.data, part_ * F<D>::kRowBytes, row_bytes);
        if (F<D>::kScaleBytes == 0) continue;
        constexpr int kPiece = F<D>::kScaleBytes % 16 == 0 ? 16 : 8;
        copy_pieces<F<D>::kScaleBytes / kPiece, kPiece>(
            slot + kRows * F<D>::kRowBytes, reinterpret_cast<const uint8_t*>(ahead_.a.scales),
            reinterpret_cast<const uint8_t*>(ahead_.b.scales), part_ * F<D>::kScaleBytes, scale_bytes);
      }
      if (part_ * kWarpSize >= ahead_.chunks) {
        part_ = 0;
        cursor_.next();
        if (cursor_.there()) ahead_ = cursor_.run();
        else ahead_.dtype = kAnyFormat;
      }
    }
    commit_copies();
  }

  template <int D>
  __device__ __forceinline__ RowSums take(int chunks, const Staged<kFormat>& x) {
    // Where the layout of x repeats from part to part, a thread's places in it are the same in all of them.
    constexpr int kQuads = kWarpSize * F<D>::kWeights / 4;
    constexpr bool kRepeats = kQuads % Staged<kFormat>::kPeriod == 0;
    float sums[kRows] = {};
    // A part of the ring, the one from this chunk of the run on: what is loaded of it, and what that adds to the sums.
    using Chunk = typename F<D>::Chunk;
    auto load = [&](const uint8_t* part, Chunk(&chunk)[kRows]) {
      const uint16_t* scales = reinterpret_cast<const uint16_t*>(part + kRows * F<D>::kRowBytes);
      chunk[0] = F<D>::load(part, scales, lane_id());
      chunk[1] = F<D>::load(part + F<D>::kRowBytes, scales + F<D>::kScaleBytes / 2, lane_id());
    };
    auto add = [&](const Chunk(&chunk)[kRows], int at) {
      const Staged<kFormat> from = kRepeats ? x.from(at / kWarpSize * kQuads) : x;
      F<D>::add_dot(chunk, kRepeats ? lane_id() : at + lane_id(), from, sums);
    };
    CQIL_NO_UNROLL for (int base = 0; base < chunks; base += depth<D>() * kWarpSize) {
      wait_copies<F<D>::kSlots - 1>();
      sync_warp();
      uint8_t* const slot = ring_ + slot_ * depth<D>() * kPartBytes<D>;
      const uint8_t* part = slot;
      const int end = min(base + depth<D>() * kWarpSize, chunks);
      int at = base;
      // Two parts at a time, so that there is always something to do while loads are on their way.
      if constexpr (kFormat != kAnyFormat) {
        CQIL_NO_UNROLL for (; at + 2 * kWarpSize <= end; at += 2 * kWarpSize, part += 2 * kPartBytes<D>) {
          Chunk first[kRows], second[kRows];
          load(part, first);
          load(part + kPartBytes<D>, second);
          add(first, at);
          add(second, at + kWarpSize);
        }
      }
      CQIL_NO_UNROLL for (; at + lane_id() < end; at += kWarpSize, part += kPartBytes<D>) {
        Chunk chunk[kRows];
        load(part, chunk);
        add(chunk, at);
      }
      sync_warp();
      copy_stage<D>(slot);
      if (++slot_ == F<D>::kSlots) slot_ = 0;
    }
    return {{warp_sum(sums[0]), warp_sum(sums[1])}};
  }

  Cursor cursor_;  // at the run of which the next stage is asked for
  int ring_bytes_;
  uint8_t* ring_;
  Run ahead_ = {};           // that run; of kAnyFormat behind the last
  int part_ = 0;             // its parts that were asked for
  int slot_ = 0;             // that holds the next stage
  int filled_ = kAnyFormat;  // the format of what is in the ring
};

}  // namespace cqil::cuda
