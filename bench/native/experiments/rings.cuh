// Streams of bf16 rows through a ring of shared memory per warp, and their dot products with a vector there: by
// cp.async, or by bulk copies that complete on an mbarrier.
//
// Every multiprocessor has contiguous groups of kRows rows; a group is cut into stages of kCopy bytes of each row, and
// each warp has a contiguous range of its multiprocessor's stages. Rows that two warps share are added up in shared
// memory.
#pragma once
#include "experiment.cuh"

namespace experiment {

struct Weights {
  const uint8_t* data;
  int rows, cols;  // cols: a multiple of 256
};

enum Method { kAsync, kBulk };

__device__ __forceinline__ uint32_t shared_address(const void* at) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(at));
}

// The order in which vectors lie in shared memory: a lane's two quads of each 256 floats are 32 quads apart, so that a
// warp's reads meet no bank twice.
__device__ __forceinline__ int staged_place(int i) {
  const int quad = i / 4;
  return 4 * (quad / 64 * 64 + quad % 2 * 32 + quad % 64 / 2) + i % 4;
}

__device__ __forceinline__ void add_dot(const uint4& w, const float4& x, const float4& y, float& sum) {
  sum = fmaf(__uint_as_float(w.x << 16), x.x, sum);
  sum = fmaf(__uint_as_float(w.x & 0xffff0000u), x.y, sum);
  sum = fmaf(__uint_as_float(w.y << 16), x.z, sum);
  sum = fmaf(__uint_as_float(w.y & 0xffff0000u), x.w, sum);
  sum = fmaf(__uint_as_float(w.z << 16), y.x, sum);
  sum = fmaf(__uint_as_float(w.z & 0xffff0000u), y.y, sum);
  sum = fmaf(__uint_as_float(w.w << 16), y.z, sum);
  sum = fmaf(__uint_as_float(w.w & 0xffff0000u), y.w, sum);
}

__device__ __forceinline__ float warp_sum(float value) {
#pragma unroll
  for (int mask = 16; mask > 0; mask /= 2) value += __shfl_xor_sync(0xffffffffu, value, mask);
  return value;
}

// Where a warp is in its range of stages.
template <int kRows, int kCopy>
struct Cursor {
  const uint8_t* data;
  int row_bytes, parts;  // stages of a group
  int group, part, left;

  // Block `block` of `blocks`, warp `warp` of `warps`.
  __device__ __forceinline__ Cursor(const Weights& w, int block, int blocks, int warp, int warps)
      : data(w.data), row_bytes(2 * w.cols), parts((row_bytes + kCopy - 1) / kCopy) {
    const int groups = w.rows / kRows;
    const int first = static_cast<int>(static_cast<int64_t>(groups) * block / blocks),
              end = static_cast<int>(static_cast<int64_t>(groups) * (block + 1) / blocks);
    const int stages = (end - first) * parts;
    const int from = static_cast<int>(static_cast<int64_t>(stages) * warp / warps),
              to = static_cast<int>(static_cast<int64_t>(stages) * (warp + 1) / warps);
    group = first + from / parts;
    part = from % parts;
    left = to - from;
  }
  __device__ __forceinline__ int bytes() const { return min(kCopy, row_bytes - part * kCopy); }
  __device__ __forceinline__ const uint8_t* at(int row) const {
    return data + (static_cast<int64_t>(group) * kRows + row) * row_bytes + part * kCopy;
  }
  __device__ __forceinline__ void next() {
    left--;
    if (++part == parts) part = 0, group++;
  }
};

__device__ __forceinline__ void wait_full(uint32_t barrier, uint32_t parity) {
  asm volatile(
      "{\n.reg .pred done;\nagain:\nmbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n@!done bra again;\n}" ::
          "r"(barrier),
      "r"(parity)
      : "memory");
}

// kSlots: stages of a warp's ring; 0: as many as `slots` says, for bulk copies only.
template <int kMethod, int kRows, int kCopy, int kSlots>
class Ring {
 public:
  static constexpr int kStage = kRows * kCopy;
  using Place = Cursor<kRows, kCopy>;

  // ring: this warp's, kStage bytes for each slot; full: its barriers, one a slot.
  __device__ __forceinline__ Ring(uint8_t* ring, uint64_t* full, int slots, const Place& place)
      : ring_(ring), full_(shared_address(full)), slots_(kSlots > 0 ? kSlots : slots), ahead_(place), here_(place) {
    lane_ = static_cast<int>(threadIdx.x) % 32;
    if (kMethod == kBulk) {
      asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy_));
      if (lane_ == 0) {
        for (int s = 0; s < slots_; s++)
          asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(full_ + 8 * s) : "memory");
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
        asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
      }
      __syncwarp();
    }
  }

  __device__ __forceinline__ void fill() {
#pragma unroll 1
    for (int s = 0; s < slots_; s++) ask(s);
  }

  // done(group, sums of its rows over this warp's part of them), in every lane; at_end() once, in every lane, when the
  // last stage has been asked for.
  template <class Done, class AtEnd>
  __device__ __forceinline__ void run(const float4* x, Done done, AtEnd at_end) {
    float sums[kRows] = {};
    int slot = 0;
    uint32_t parity = 0;
    bool ended = false;
#pragma unroll 1
    while (here_.left > 0) {
      if (!ended && ahead_.left == 0) at_end(), ended = true;
      if (kMethod == kBulk) {
        wait_full(full_ + 8 * slot, parity);
      } else {
        asm volatile("cp.async.wait_group %0;" ::"n"((kSlots > 0 ? kSlots : 1) - 1) : "memory");
        __syncwarp();
      }
      const uint8_t* stage = ring_ + slot * kStage;
      const float4* from = x + here_.part * (kCopy / 8) + lane_;
      const int pieces = here_.bytes() / 512;
      if (pieces == kCopy / 512) {
        constexpr int kUnroll = kRows == 2 ? 4 : 2;
#pragma unroll kUnroll
        for (int j = 0; j < kCopy / 512; j++) piece(stage, from, j, sums);
      } else {
#pragma unroll 1
        for (int j = 0; j < pieces; j++) piece(stage, from, j, sums);
      }
      __syncwarp();
      ask(slot);
      if (++slot == slots_) slot = 0, parity ^= 1;
      const int group = here_.group;
      here_.next();
      if (here_.group != group || here_.left == 0) {
#pragma unroll
        for (int r = 0; r < kRows; r++) sums[r] = warp_sum(sums[r]);
        done(group, sums);
#pragma unroll
        for (int r = 0; r < kRows; r++) sums[r] = 0;
      }
    }
    if (!ended) at_end();
  }

 private:
  __device__ __forceinline__ void piece(const uint8_t* stage, const float4* from, int j, float (&sums)[kRows]) const {
    const float4 a = from[64 * j], b = from[64 * j + 32];
#pragma unroll
    for (int r = 0; r < kRows; r++)
      add_dot(*reinterpret_cast<const uint4*>(stage + r * kCopy + 512 * j + 16 * lane_), a, b, sums[r]);
  }

  __device__ __forceinline__ void ask(int slot) {
    if (ahead_.left > 0) {
      const int bytes = ahead_.bytes();
      if (kMethod == kBulk) {
        if (lane_ == 0) {
          const uint32_t barrier = full_ + 8 * slot;
          asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(kRows * bytes)
                       : "memory");
#pragma unroll
          for (int r = 0; r < kRows; r++)
            asm volatile(
                "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1], %2, "
                "[%3], "
                "%4;" ::"r"(shared_address(ring_ + slot * kStage + r * kCopy)),
                "l"(ahead_.at(r)), "r"(bytes), "r"(barrier), "l"(policy_)
                : "memory");
        }
      } else {
#pragma unroll
        for (int r = 0; r < kRows; r++) {
          const uint32_t to = shared_address(ring_ + slot * kStage + r * kCopy + 16 * lane_);
          const uint8_t* from = ahead_.at(r) + 16 * lane_;
#pragma unroll
          for (int j = 0; j < kCopy / 512; j++)
            if (512 * j < bytes)
              asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16;" ::"r"(to + 512 * j), "l"(from + 512 * j)
                           : "memory");
        }
      }
      ahead_.next();
    }
    if (kMethod == kAsync) asm volatile("cp.async.commit_group;" ::: "memory");
  }

  uint8_t* ring_;
  uint32_t full_;
  int slots_, lane_;
  uint64_t policy_ = 0;
  Place ahead_, here_;
};

constexpr int kMostSlots = 32;  // room for a warp's barriers

// bf16 weights in [-scale, scale) and floats in [-1, 1), by a hash of place and seed.
__global__ void fill_weights(uint32_t* pairs, size_t count, uint32_t seed, float scale) {
  for (size_t i = blockIdx.x * static_cast<size_t>(blockDim.x) + threadIdx.x; i < count;
       i += static_cast<size_t>(gridDim.x) * blockDim.x) {
    const uint32_t low = __float_as_uint(scale * uniform(seed, static_cast<uint32_t>(2 * i))),
                   high = __float_as_uint(scale * uniform(seed + 1, static_cast<uint32_t>(2 * i)));
    pairs[i] = (high & 0xffff0000u) | low >> 16;
  }
}
__global__ void fill_floats(float* to, int count, uint32_t seed) {
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x) to[i] = uniform(seed, i);
}

// The reference in float64: a warp a row.
template <class X>
__global__ void reference_product(Weights w, const X* x, double* y) {
  const int row = (blockIdx.x * blockDim.x + threadIdx.x) / 32, lane = threadIdx.x % 32;
  if (row >= w.rows) return;
  const uint16_t* data = reinterpret_cast<const uint16_t*>(w.data) + static_cast<int64_t>(row) * w.cols;
  double sum = 0;
  for (int i = lane; i < w.cols; i += 32)
    sum += static_cast<double>(__uint_as_float(static_cast<uint32_t>(data[i]) << 16)) * static_cast<double>(x[i]);
  for (int mask = 16; mask > 0; mask /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, mask);
  if (lane == 0) y[row] = sum;
}

// ‖y - reference‖ / ‖reference‖ of two device vectors; NaN counts as 1e9.
inline double distance(const float* y, const double* reference, int n) {
  const std::vector<float> a = fetch(y, n);
  const std::vector<double> b = fetch(reference, n);
  double difference = 0, norm = 0;
  for (int i = 0; i < n; i++) difference += (a[i] - b[i]) * (a[i] - b[i]), norm += b[i] * b[i];
  const double ratio = difference / norm;
  return ratio == ratio ? __builtin_sqrt(ratio) : 1e9;
}

}  // namespace experiment
