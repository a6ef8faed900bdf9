// How fast weights can be read and multiplied: bf16 rows of 4,096 times a vector, against a plain read and a copy of
// as many bytes. Weights come through rings of shared memory (rings.cuh), in several depths and shapes, or straight to
// registers.
#include "rings.cuh"

using namespace experiment;

namespace {

constexpr int kCols = 4096;
constexpr size_t kLarge = size_t{2} << 30, kSmall = size_t{270} * 1000 * 1000 / (2 * kCols * 4) * (2 * kCols * 4);

struct Problem {
  uint8_t* data;
  float *x, *y;
  double* reference;
  int blocks, shared_limit;
};

template <int kMethod, int kRows, int kCopy, int kSlots>
__global__ void __launch_bounds__(512, 1) ring_kernel(Weights w, const float* x, float* y, int slots) {
  extern __shared__ __align__(128) uint8_t shared[];
  using Stream = Ring<kMethod, kRows, kCopy, kSlots>;
  const int warps = static_cast<int>(blockDim.x) / 32, warp = static_cast<int>(threadIdx.x) / 32;
  const int block = static_cast<int>(blockIdx.x), blocks = static_cast<int>(gridDim.x);
  if (kSlots > 0) slots = kSlots;
  float* staged = reinterpret_cast<float*>(shared);
  uint64_t* full = reinterpret_cast<uint64_t*>(shared + 4 * kCols);
  uint8_t* ring = shared + 4 * kCols + 8 * kMostSlots * 16;
  float* sums = reinterpret_cast<float*>(ring + static_cast<size_t>(warps) * slots * Stream::kStage);
  const int groups = w.rows / kRows;
  const int first = static_cast<int>(static_cast<int64_t>(groups) * block / blocks) * kRows,
            end = static_cast<int>(static_cast<int64_t>(groups) * (block + 1) / blocks) * kRows;
  Stream stream(ring + warp * slots * Stream::kStage, full + warp * kMostSlots, slots,
                Cursor<kRows, kCopy>(w, block, blocks, warp, warps));
  stream.fill();
  for (int i = threadIdx.x; i < kCols; i += blockDim.x) staged[staged_place(i)] = x[i];
  for (int i = threadIdx.x; i < end - first; i += blockDim.x) sums[i] = 0;
  __syncthreads();
  stream.run(
      reinterpret_cast<const float4*>(staged),
      [&](int group, const float (&of)[kRows]) {
        if (threadIdx.x % 32 == 0)
          for (int r = 0; r < kRows; r++) atomicAdd(&sums[group * kRows + r - first], of[r]);
      },
      [] {});
  __syncthreads();
  for (int i = threadIdx.x; i < end - first; i += blockDim.x) y[first + i] = sums[i];
}

// kFlight loads of 16 bytes a thread to registers, then their products; no ring. A warp a group of rows in turn.
template <int kRows, int kFlight>
__global__ void __launch_bounds__(512) register_kernel(Weights w, const float* x, float* y) {
  __shared__ float4 staged[kCols / 4];
  for (int i = threadIdx.x; i < kCols; i += blockDim.x) reinterpret_cast<float*>(staged)[staged_place(i)] = x[i];
  __syncthreads();
  constexpr int kEach = kFlight / kRows;
  uint64_t policy;
  asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  const int lane = threadIdx.x % 32, warps = blockDim.x / 32 * gridDim.x;
  for (int group = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32; group < w.rows / kRows; group += warps) {
    const uint8_t* at = w.data + static_cast<int64_t>(group) * kRows * (2 * kCols) + 16 * lane;
    float sums[kRows] = {};
#pragma unroll 1
    for (int base = 0; base < 2 * kCols / 512; base += kEach) {
      uint4 loaded[kRows][kEach];
#pragma unroll
      for (int r = 0; r < kRows; r++)
#pragma unroll
        for (int j = 0; j < kEach; j++) {
          uint4& v = loaded[r][j];
          asm volatile("ld.global.nc.L1::no_allocate.L2::cache_hint.v4.u32 {%0, %1, %2, %3}, [%4], %5;"
                       : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                       : "l"(at + r * (2 * kCols) + 512 * (base + j)), "l"(policy));
        }
#pragma unroll
      for (int j = 0; j < kEach; j++) {
        const float4 a = staged[64 * (base + j) + lane], b = staged[64 * (base + j) + 32 + lane];
#pragma unroll
        for (int r = 0; r < kRows; r++) add_dot(loaded[r][j], a, b, sums[r]);
      }
    }
#pragma unroll
    for (int r = 0; r < kRows; r++) {
      const float sum = warp_sum(sums[r]);
      if (lane == 0) y[group * kRows + r] = sum;
    }
  }
}

enum Load { kDefault, kStreaming, kNoAllocate, kEvictFirst };
constexpr const char* kLoads[] = {"ld", "ld.cs", "ld.nc.no_allocate", "ld.nc.no_allocate evict_first"};

template <int kHow>
__device__ __forceinline__ uint4 load(const uint4* at, uint64_t policy) {
  if constexpr (kHow == kDefault) return *at;
  if constexpr (kHow == kStreaming) return __ldcs(at);
  uint4 v;
  if constexpr (kHow == kNoAllocate)
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(at));
  else
    asm volatile("ld.global.nc.L1::no_allocate.L2::cache_hint.v4.u32 {%0, %1, %2, %3}, [%4], %5;"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(at), "l"(policy));
  return v;
}

// Only reads. Blocks go over the data in turn, each kFlight x its threads x 16 bytes at once.
template <int kHow, int kFlight>
__global__ void __launch_bounds__(512) read_kernel(const uint4* data, size_t count, float* never) {
  uint64_t policy;
  asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  const size_t tile = static_cast<size_t>(kFlight) * blockDim.x;
  uint32_t all = 0;
  for (size_t base = blockIdx.x * tile; base < count; base += gridDim.x * tile) {
    uint4 v[kFlight];
#pragma unroll
    for (int k = 0; k < kFlight; k++) {
      const size_t i = base + static_cast<size_t>(k) * blockDim.x + threadIdx.x;
      v[k] = i < count ? load<kHow>(data + i, policy) : make_uint4(0, 0, 0, 0);
    }
#pragma unroll
    for (int k = 0; k < kFlight; k++) all |= v[k].x | v[k].y | v[k].z | v[k].w;
  }
  if (all == 0x12345678u) *never = 1;
}

struct Times {
  double large, small;  // GB/s
};

// launch(first byte, bytes). The small reads go over the large buffer in turn, so that none finds the last in L2.
template <class Launch>
Times measure(const Problem& p, Launch launch) {
  const int places = static_cast<int>(kLarge / kSmall);
  const float large = microseconds(4, 1, nullptr, [&](int) { launch(p.data, kLarge); }),
              small = microseconds(4, 14, nullptr, [&](int i) { launch(p.data + i % places * kSmall, kSmall); });
  CHECK(cudaGetLastError());
  return {kLarge / 1e3 / large, kSmall / 1e3 / small};
}

double best_large = 0, best_small = 0;  // of the plain reads

void print(const Times& t, const char* what, double error) {
  printf("%-64s %7.0f %7.0f", what, t.large, t.small);
  if (best_large > 0) printf("  %5.1f%% %5.1f%%", 100 * t.large / best_large, 100 * t.small / best_small);
  if (error > 1e-5) printf("  WRONG: %.1e", error);
  printf("\n");
  fflush(stdout);
}

struct Best {
  Times times = {};
  char what[96] = "";
  void offer(const Times& t, const char* name) {
    if (t.large + t.small > times.large + times.small) times = t, snprintf(what, sizeof what, "%s", name);
  }
};
Best best[2][5];  // by method, and ring of at most 64, 128, 176 and 196 KB; [4]: in registers

template <class Launch>
void product(const Problem& p, const char* name, Best* to, Launch launch) {
  const int rows = static_cast<int>(kLarge / (2 * kCols));
  CHECK(cudaMemset(p.y, 0xff, sizeof(float) * rows));
  launch(p.data, kLarge);
  CHECK(cudaDeviceSynchronize());
  const double error = distance(p.y, p.reference, rows);
  const Times t = measure(p, launch);
  print(t, name, error);
  if (error <= 1e-5) to->offer(t, name);
}

template <int kMethod, int kRows, int kCopy, int kSlots>
void ring(const Problem& p, int warps, int slots) {
  constexpr int kStage = kRows * kCopy;
  const int bytes = warps * slots * kStage;
  const int rows_each = static_cast<int>(kLarge / (2 * kCols)) / p.blocks + kRows + 1;
  const int shared = 4 * kCols + 8 * kMostSlots * 16 + bytes + 4 * rows_each;
  if (shared > p.shared_limit || slots < 2 || slots > kMostSlots) return;
  auto* kernel = ring_kernel<kMethod, kRows, kCopy, kSlots>;
  CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout, cudaSharedmemCarveoutMaxShared));
  CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared));
  char name[96];
  snprintf(name, sizeof name, "%s: %2d warps, %d rows, %d KB a copy, %2d slots, ring %3d KB",
           kMethod == kBulk ? "bulk" : "cp.async", warps, kRows, kCopy / 1024, slots, bytes / 1024);
  const int size = bytes <= 64 << 10 ? 0 : bytes <= 128 << 10 ? 1 : bytes <= 176 << 10 ? 2 : 3;
  product(p, name, &best[kMethod][size], [&](const uint8_t* data, size_t of) {
    const Weights w = {data, static_cast<int>(of / (2 * kCols)), kCols};
    kernel<<<p.blocks, 32 * warps, shared>>>(w, p.x, p.y, slots);
  });
}

template <int kRows, int kCopy>
void bulk(const Problem& p) {
  for (int warps : {8, 12, 16}) {
    int last = 0;
    for (int kb : {64, 128, 176, 196}) {
      const int slots = std::min(kMostSlots, (kb << 10) / (warps * kRows * kCopy));
      if (slots != last) ring<kBulk, kRows, kCopy, 0>(p, warps, slots);
      last = slots;
    }
  }
}
template <int kRows, int kCopy, int kSlots>
void async(const Problem& p) {
  for (int warps : {8, 12, 16}) ring<kAsync, kRows, kCopy, kSlots>(p, warps, kSlots);
}

template <int kRows, int kFlight>
void registers(const Problem& p) {
  for (int threads : {256, 512}) {
    int fit = 0;
    CHECK(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&fit, register_kernel<kRows, kFlight>, threads, 0));
    char name[96];
    snprintf(name, sizeof name, "registers: %2d x %3d threads, %d rows, %2d loads", fit, threads, kRows, kFlight);
    product(p, name, &best[0][4], [&](const uint8_t* data, size_t of) {
      const Weights w = {data, static_cast<int>(of / (2 * kCols)), kCols};
      register_kernel<kRows, kFlight><<<p.blocks * fit, threads>>>(w, p.x, p.y);
    });
  }
}

template <int kHow, int kFlight>
void reads(const Problem& p, Times* most) {
  for (int threads : {256, 512}) {
    int fit = 0;
    CHECK(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&fit, read_kernel<kHow, kFlight>, threads, 0));
    const Times t = measure(p, [&](const uint8_t* data, size_t of) {
      read_kernel<kHow, kFlight><<<p.blocks * fit, threads>>>(reinterpret_cast<const uint4*>(data), of / 16, p.y);
    });
    char name[96];
    snprintf(name, sizeof name, "read: %s, %2d x %3d threads, %2d loads", kLoads[kHow], fit, threads, kFlight);
    print(t, name, 0);
    most->large = std::max(most->large, t.large), most->small = std::max(most->small, t.small);
  }
}

}  // namespace

int main() {
  const cudaDeviceProp properties = device();
  Problem p = {};
  p.blocks = properties.multiProcessorCount;
  p.shared_limit = static_cast<int>(properties.sharedMemPerBlockOptin);
  p.data = allocate<uint8_t>(kLarge);
  uint8_t* const copy = allocate<uint8_t>(kLarge);
  const int rows = static_cast<int>(kLarge / (2 * kCols));
  p.x = allocate<float>(kCols);
  p.y = allocate<float>(rows);
  p.reference = allocate<double>(rows);
  fill_weights<<<1056, 256>>>(reinterpret_cast<uint32_t*>(p.data), kLarge / 4, 1, 0.02f);
  fill_floats<<<4, 256>>>(p.x, kCols, 77);
  reference_product<<<rows / 8, 256>>>(Weights{p.data, rows, kCols}, p.x, p.reference);
  CHECK(cudaDeviceSynchronize());

  printf("streaming on %s: GB/s of %.2f GB and %.2f GB, and of the fastest plain read\n", properties.name, kLarge / 1e9,
         kSmall / 1e9);
  const Times copied = measure(p, [&](const uint8_t* data, size_t of) {
    CHECK(cudaMemcpyAsync(copy, data, of, cudaMemcpyDeviceToDevice, nullptr));
  });
  print({2 * copied.large, 2 * copied.small}, "copy by cudaMemcpy, read + written", 0);
  Times most = {};
  reads<kDefault, 4>(p, &most);
  reads<kDefault, 8>(p, &most);
  reads<kStreaming, 8>(p, &most);
  reads<kStreaming, 16>(p, &most);
  reads<kNoAllocate, 8>(p, &most);
  reads<kEvictFirst, 4>(p, &most);
  reads<kEvictFirst, 8>(p, &most);
  reads<kEvictFirst, 16>(p, &most);
  best_large = most.large, best_small = most.small;

  registers<2, 8>(p);
  registers<2, 16>(p);
  registers<4, 8>(p);
  registers<4, 16>(p);
  async<2, 1024, 2>(p);
  async<2, 1024, 4>(p);
  async<2, 1024, 6>(p);
  async<2, 1024, 8>(p);
  async<2, 2048, 2>(p);
  async<2, 2048, 3>(p);
  async<2, 2048, 4>(p);
  async<4, 1024, 3>(p);
  async<4, 1024, 4>(p);
  bulk<2, 1024>(p);
  bulk<2, 2048>(p);
  bulk<2, 4096>(p);
  bulk<2, 8192>(p);
  bulk<4, 1024>(p);
  bulk<4, 2048>(p);
  bulk<4, 4096>(p);

  printf("best of each, GB/s and %% of the fastest plain read (%.0f, %.0f)\n", best_large, best_small);
  for (int method = 0; method < 2; method++)
    for (int size = 0; size < 5; size++)
      if (best[method][size].times.large > 0) print(best[method][size].times, best[method][size].what, 0);
  return 0;
}
