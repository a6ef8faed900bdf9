// How long one exchange of a short vector takes: every block of a cooperative launch makes its part of n floats, and
// every block then has all of them in shared memory, behind a barrier of the block.
#include "experiment.cuh"

#include <string.h>

using namespace experiment;

namespace {

constexpr int kThreads = 544, kWarps = 16, kSyncWarp = 16;  // the last warp makes no values

enum Way {
  kStageOnly,   // no synchronization: what staging costs by itself; its values are not checked
  kAtomic,      // block barrier, atom.acq_rel by thread 0, which polls; block barrier (as grid_barrier.cuh)
  kRed,         // block barrier, red.release by the sync warp, which polls; block barrier
  kFlags,       // block barrier, the sync warp stores a flag and polls all of them; block barrier
  kFlagsByAll,  // the same, but every warp polls the flags by itself
  kPair,        // {float, epoch}, 8 bytes
  kTwoPairs,    // two of them by one 16-byte access
  kTriple,      // {float, float, float, epoch}, 16 bytes (.b128)
};
constexpr const char* kNames[] = {
    "stage only (unchecked)", "atom.acq_rel, thread 0 polls", "red.release, a warp polls", "flags, a warp polls",
    "flags, all warps poll",  "{float, epoch} 8 B",           "2 x {float, epoch} 16 B",   "{3 floats, epoch} 16 B"};

struct Exchange {
  float* values;      // [2][n]
  void* tagged;       // [2][n] pairs at most
  uint32_t* counter;  // zero
  uint32_t* flags;    // [blocks], zero
  uint32_t* errors;
  int n;
  uint32_t rounds, first;  // epochs first + 1 ... first + rounds
};

__device__ __forceinline__ void store_pair(uint2* to, float value, uint32_t epoch) {
  const uint64_t both = static_cast<uint64_t>(epoch) << 32 | __float_as_uint(value);
  asm volatile("st.relaxed.gpu.global.b64 [%0], %1;" ::"l"(to), "l"(both) : "memory");
}
__device__ __forceinline__ uint2 load_pair(const uint2* at) {
  uint64_t both;
  asm volatile("ld.relaxed.gpu.global.b64 %0, [%1];" : "=l"(both) : "l"(at) : "memory");
  return make_uint2(static_cast<uint32_t>(both), static_cast<uint32_t>(both >> 32));
}
__device__ __forceinline__ void store_pairs(uint4* to, float a, float b, uint32_t epoch) {
  const uint64_t first = static_cast<uint64_t>(epoch) << 32 | __float_as_uint(a),
                 second = static_cast<uint64_t>(epoch) << 32 | __float_as_uint(b);
  asm volatile("st.relaxed.gpu.global.v2.b64 [%0], {%1, %2};" ::"l"(to), "l"(first), "l"(second) : "memory");
}
__device__ __forceinline__ uint4 load_pairs(const uint4* at) {
  uint64_t first, second;
  asm volatile("ld.relaxed.gpu.global.v2.b64 {%0, %1}, [%2];" : "=l"(first), "=l"(second) : "l"(at) : "memory");
  return make_uint4(static_cast<uint32_t>(first), static_cast<uint32_t>(first >> 32), static_cast<uint32_t>(second),
                    static_cast<uint32_t>(second >> 32));
}
__device__ __forceinline__ void store_triple(uint4* to, float a, float b, float c, uint32_t epoch) {
  const uint64_t first = static_cast<uint64_t>(__float_as_uint(b)) << 32 | __float_as_uint(a),
                 second = static_cast<uint64_t>(epoch) << 32 | __float_as_uint(c);
  asm volatile("{\n.reg .b128 both;\nmov.b128 both, {%1, %2};\nst.relaxed.gpu.global.b128 [%0], both;\n}" ::"l"(to),
               "l"(first), "l"(second)
               : "memory");
}
__device__ __forceinline__ uint4 load_triple(const uint4* at) {
  uint64_t first, second;
  asm volatile("{\n.reg .b128 both;\nld.relaxed.gpu.global.b128 both, [%2];\nmov.b128 {%0, %1}, both;\n}"
               : "=l"(first), "=l"(second)
               : "l"(at)
               : "memory");
  return make_uint4(static_cast<uint32_t>(first), static_cast<uint32_t>(first >> 32), static_cast<uint32_t>(second),
                    static_cast<uint32_t>(second >> 32));
}
__device__ __forceinline__ uint32_t load_acquire(const uint32_t* at) {
  uint32_t value;
  asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(at) : "memory");
  return value;
}
__device__ __forceinline__ uint32_t load_relaxed(const uint32_t* at) {
  uint32_t value;
  asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(at) : "memory");
  return value;
}

// Until all flags are at this epoch: one warp, 32 flags a load.
__device__ __forceinline__ void poll_flags(const uint32_t* flags, int lane, uint32_t epoch) {
  constexpr int kLoads = 5;  // 160 blocks
  const int blocks = static_cast<int>(gridDim.x);
  for (;;) {
    bool all = true;
    uint32_t seen[kLoads];
#pragma unroll
    for (int k = 0; k < kLoads; k++) seen[k] = lane + 32 * k < blocks ? load_relaxed(flags + lane + 32 * k) : epoch;
#pragma unroll
    for (int k = 0; k < kLoads; k++) all &= static_cast<int32_t>(seen[k] - epoch) >= 0;
    if (__all_sync(0xffffffffu, all)) break;
  }
  asm volatile("fence.acq_rel.gpu;" ::: "memory");
}

// Values a tagged unit holds.
__host__ __device__ constexpr int unit_of(int way) { return way == kTwoPairs ? 2 : way == kTriple ? 3 : 1; }

// kLoads: units of the vector a thread, rounded up.
template <int kWay, int kLoads, bool kCheck>
__global__ void __launch_bounds__(kThreads, 1) exchange_kernel(Exchange e) {
  extern __shared__ float staged[];
  constexpr int kUnit = unit_of(kWay);
  const int tid = static_cast<int>(threadIdx.x), warp = tid / 32, lane = tid % 32, n = e.n;
  const int blocks = static_cast<int>(gridDim.x), block = static_cast<int>(blockIdx.x);
  const int units = (n + kUnit - 1) / kUnit;
  const int begin = static_cast<int>(static_cast<int64_t>(units) * block / blocks),
            end = static_cast<int>(static_cast<int64_t>(units) * (block + 1) / blocks);
  // Rows go to warps in turn, so that a warp's lane makes the values of its rows.
  const int mine = warp < kWarps ? begin + warp + kWarps * lane : end;
  uint32_t errors = 0, before = 0;
  for (uint32_t round = 1; round <= e.rounds; round++) {
    const uint32_t epoch = e.first + round;
    const size_t half = static_cast<size_t>(epoch & 1) * units;
    float value[kUnit] = {};
    if (mine < end)
      for (int k = 0; k < kUnit; k++) value[k] = uniform(epoch, mine * kUnit + k);
    if constexpr (kWay <= kFlagsByAll) {
      if (mine < end) e.values[half + mine] = value[0];
      if constexpr (kWay == kAtomic) {
        __syncthreads();
        if (tid == 0) {
          const uint32_t amount = block == 0 ? 0x80000000u - (gridDim.x - 1) : 1u;
          asm volatile("atom.add.acq_rel.gpu.global.u32 %0, [%1], %2;"
                       : "=r"(before)
                       : "l"(e.counter), "r"(amount)
                       : "memory");
          while (((before ^ load_acquire(e.counter)) & 0x80000000u) == 0) {
          }
        }
        __syncthreads();
      } else if constexpr (kWay == kRed) {
        __syncthreads();
        if (warp == kSyncWarp) {
          if (lane == 0) {
            asm volatile("red.release.gpu.global.add.u32 [%0], 1;" ::"l"(e.counter) : "memory");
            while (static_cast<int32_t>(load_acquire(e.counter) - gridDim.x * epoch) < 0) {
            }
          }
        }
        __syncthreads();
      } else if constexpr (kWay == kFlags || kWay == kFlagsByAll) {
        __syncthreads();
        if (warp == kSyncWarp && lane == 0) {
          asm volatile("fence.acq_rel.gpu;" ::: "memory");
          asm volatile("st.relaxed.gpu.global.u32 [%0], %1;" ::"l"(e.flags + block), "r"(epoch) : "memory");
        }
        if (kWay == kFlagsByAll || warp == kSyncWarp) poll_flags(e.flags, lane, epoch);
        if (kWay == kFlags) __syncthreads();
      }
      float got[kLoads];
#pragma unroll
      for (int k = 0; k < kLoads; k++)
        if (tid + kThreads * k < n) got[k] = __ldcg(e.values + half + tid + kThreads * k);
#pragma unroll
      for (int k = 0; k < kLoads; k++)
        if (tid + kThreads * k < n) staged[tid + kThreads * k] = got[k];
    } else if constexpr (kWay == kPair) {
      uint2* const at = static_cast<uint2*>(e.tagged) + half;
      if (mine < end) store_pair(at + mine, value[0], epoch);
      uint2 got[kLoads];
#pragma unroll
      for (int k = 0; k < kLoads; k++)
        if (tid + kThreads * k < units) got[k] = load_pair(at + tid + kThreads * k);
#pragma unroll
      for (int k = 0; k < kLoads; k++) {
        if (tid + kThreads * k >= units) continue;
        while (got[k].y != epoch) got[k] = load_pair(at + tid + kThreads * k);
        staged[tid + kThreads * k] = __uint_as_float(got[k].x);
      }
    } else {
      uint4* const at = static_cast<uint4*>(e.tagged) + half;
      if (mine < end) {
        if constexpr (kWay == kTwoPairs) store_pairs(at + mine, value[0], value[1], epoch);
        else store_triple(at + mine, value[0], value[1], value[2], epoch);
      }
      auto load = [&](int k) {
        if constexpr (kWay == kTwoPairs) return load_pairs(at + tid + kThreads * k);
        else return load_triple(at + tid + kThreads * k);
      };
      auto stale = [&](const uint4& u) { return u.w != epoch || (kWay == kTwoPairs && u.y != epoch); };
      uint4 got[kLoads];
#pragma unroll
      for (int k = 0; k < kLoads; k++)
        if (tid + kThreads * k < units) got[k] = load(k);
#pragma unroll
      for (int k = 0; k < kLoads; k++) {
        const int u = tid + kThreads * k;
        if (u >= units) continue;
        while (stale(got[k])) got[k] = load(k);
        staged[kUnit * u] = __uint_as_float(got[k].x);
        staged[kUnit * u + 1] = __uint_as_float(kWay == kTwoPairs ? got[k].z : got[k].y);
        if (kWay == kTriple) staged[kUnit * u + 2] = __uint_as_float(got[k].z);
      }
    }
    __syncthreads();
    // The next round's staging must not overtake these reads; in the timed kernel a thread reads one value, which is
    // what a product would begin with.
    if constexpr (kCheck) {
      if (kWay != kStageOnly)
        for (int i = tid; i < n; i += kThreads) errors += staged[i] != uniform(epoch, i);
      __syncthreads();
    } else {
      if (staged[(tid + epoch) % 512] == 2.0f) errors++;
    }
  }
  if (errors > 0) atomicAdd(e.errors, errors);
}

struct Result {
  float us;
  uint32_t errors;
};

template <int kWay, int kLoads>
Result measure(Exchange e, int blocks, int n) {
  e.n = n;
  CHECK(cudaMemset(e.tagged, 0, size_t{2} * 16 * (n + 2)));
  CHECK(cudaMemset(e.values, 0xff, size_t{2} * 4 * n));
  CHECK(cudaMemset(e.counter, 0, 4));
  CHECK(cudaMemset(e.flags, 0, 4 * blocks));
  CHECK(cudaMemset(e.errors, 0, 4));
  const size_t shared = 4 * (n + 4);
  uint32_t first = 0;
  auto run = [&](void* kernel, uint32_t rounds) {
    e.rounds = rounds, e.first = first;
    void* arguments[] = {&e};
    CHECK(cudaLaunchCooperativeKernel(kernel, dim3(blocks), dim3(kThreads), arguments, shared, nullptr));
    first += rounds;
  };
  run(reinterpret_cast<void*>(exchange_kernel<kWay, kLoads, true>), 10000);
  CHECK(cudaDeviceSynchronize());
  const uint32_t errors = fetch(e.errors, 1)[0];
  // Two lengths, so that the launch itself falls out.
  void* const timed = reinterpret_cast<void*>(exchange_kernel<kWay, kLoads, false>);
  const float most = microseconds(5, 1, nullptr, [&](int) { run(timed, 11000); }),
              least = microseconds(5, 1, nullptr, [&](int) { run(timed, 1000); });
  return {(most - least) / 10000.0f, errors};
}

template <int kWay>
void row(const Exchange& e, int blocks) {
  constexpr int kUnit = unit_of(kWay);
  auto loads = [](int n) { return ((n + kUnit - 1) / kUnit + kThreads - 1) / kThreads; };
  constexpr int kShort = (576 / kUnit + kThreads - 1) / kThreads, kMiddle = (1536 / kUnit + kThreads - 1) / kThreads,
                kLong = ((5632 + kUnit - 1) / kUnit + kThreads - 1) / kThreads;
  if (loads(576) != kShort || loads(1536) != kMiddle || loads(5632) != kLong) exit(2);
  const Result r[] = {measure<kWay, kShort>(e, blocks, 576), measure<kWay, kMiddle>(e, blocks, 1536),
                      measure<kWay, kLong>(e, blocks, 5632)};
  printf("%-30s", kNames[kWay]);
  for (const Result& one : r) {
    printf(" %8.3f", one.us);
    if (one.errors > 0) printf(" (%u WRONG)", one.errors);
  }
  printf("\n");
  fflush(stdout);
}

}  // namespace

int main() {
  const cudaDeviceProp properties = device();
  const int blocks = std::min(properties.multiProcessorCount, 160);
  Exchange e = {};
  e.values = allocate<float>(2 * 8192);
  e.tagged = allocate<uint4>(2 * 8192);
  e.counter = allocate<uint32_t>(1);
  e.flags = allocate<uint32_t>(blocks);
  e.errors = allocate<uint32_t>(1);
  printf("exchange over %d blocks of %d threads on %s, us; values right in 10,000 rounds unless said\n", blocks,
         kThreads, properties.name);
  printf("%-30s %8d %8d %8d\n", "floats", 576, 1536, 5632);
  row<kStageOnly>(e, blocks);
  row<kAtomic>(e, blocks);
  row<kRed>(e, blocks);
  row<kFlags>(e, blocks);
  row<kFlagsByAll>(e, blocks);
  row<kPair>(e, blocks);
  row<kTwoPairs>(e, blocks);
  row<kTriple>(e, blocks);
  return 0;
}
