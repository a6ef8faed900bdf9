// What it brings to ask L2 for the first weights of the next phase when a phase has asked for the last of its own: a
// chain of launches that overlap as the project's (griddepcontrol), gate|up and down of several layers in turn, with
// cp.async or bulk rings.
#include "rings.cuh"

using namespace experiment;

namespace {

struct Phase {
  Weights w, next;        // next: what follows, of which the first bytes are prefetched
  const float* x;         // [w.cols], for down [2 w.cols]
  float* y;               // [w.rows]
  const float* residual;  // [w.rows], or null
  bool down;              // x = silu(gate) up, otherwise x / rms(x)
  int prefetch;           // bytes a warp
};

// Shared memory: 64 floats for reductions, x, barriers, sums of rows, rings.
__host__ __device__ constexpr int rings_at(int cols, int rows_each, int warps, int slots) {
  return (256 + 4 * cols + 8 * warps * slots + 4 * rows_each + 127) / 128 * 128;
}
__host__ __device__ constexpr int rows_each(int rows, int kRows, int blocks) {
  return (rows / kRows + blocks - 1) / blocks * kRows;
}

template <int kMethod, int kCopy, int kSlots>
__global__ void __launch_bounds__(512, 1) phase_kernel(Phase p) {
  constexpr int kRows = 2;
  extern __shared__ __align__(128) uint8_t shared[];
  using Stream = Ring<kMethod, kRows, kCopy, kSlots>;
  using Place = Cursor<kRows, kCopy>;
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
  const int warps = static_cast<int>(blockDim.x) / 32, warp = static_cast<int>(threadIdx.x) / 32;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int block = static_cast<int>(blockIdx.x), blocks = static_cast<int>(gridDim.x);
  const int cols = p.w.cols, groups = p.w.rows / kRows, each = rows_each(p.w.rows, kRows, blocks);
  float* const reduce = reinterpret_cast<float*>(shared);
  float* const staged = reduce + 64;
  uint64_t* const full = reinterpret_cast<uint64_t*>(staged + cols);
  float* const sums = reinterpret_cast<float*>(full + warps * kSlots);
  uint8_t* const ring = shared + rings_at(cols, each, warps, kSlots);
  const int first = static_cast<int>(static_cast<int64_t>(groups) * block / blocks) * kRows,
            end = static_cast<int>(static_cast<int64_t>(groups) * (block + 1) / blocks) * kRows;
  Stream stream(ring + warp * kSlots * Stream::kStage, full + warp * kSlots, kSlots,
                Place(p.w, block, blocks, warp, warps));
  stream.fill();
  for (int i = threadIdx.x; i < end - first; i += blockDim.x) sums[i] = 0;
  asm volatile("griddepcontrol.wait;" ::: "memory");
  float squares = 0;
  for (int q = threadIdx.x; q < cols / 4; q += blockDim.x) {
    float4 v = __ldcg(reinterpret_cast<const float4*>(p.x) + q);
    if (p.down) {
      const float4 up = __ldcg(reinterpret_cast<const float4*>(p.x + cols) + q);
      v.x *= up.x / (1 + __expf(-v.x)), v.y *= up.y / (1 + __expf(-v.y));
      v.z *= up.z / (1 + __expf(-v.z)), v.w *= up.w / (1 + __expf(-v.w));
    } else {
      squares += v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w;
    }
    *reinterpret_cast<float4*>(staged + staged_place(4 * q)) = v;
  }
  float scale = 1;
  if (!p.down) {
    squares = warp_sum(squares);
    if (lane == 0) reduce[warp] = squares;
  }
  __syncthreads();
  if (!p.down) {
    float total = 0;
    for (int i = 0; i < warps; i++) total += reduce[i];
    scale = rsqrtf(total / cols + 1e-5f);
  }
  stream.run(
      reinterpret_cast<const float4*>(staged),
      [&](int group, const float (&of)[kRows]) {
        if (lane == 0)
          for (int r = 0; r < kRows; r++) atomicAdd(&sums[group * kRows + r - first], of[r]);
      },
      [&] {
        if (p.prefetch == 0) return;
        Place place(p.next, block, blocks, warp, warps);
        for (int i = 0, asked = 0; asked < p.prefetch && place.left > 0; i++, place.next(), asked += Stream::kStage)
          if (lane / kRows == i)
            asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(place.at(lane % kRows)), "r"(place.bytes())
                         : "memory");
      });
  __syncthreads();
  for (int i = threadIdx.x; i < end - first; i += blockDim.x)
    p.y[first + i] = scale * sums[i] + (p.residual != nullptr ? __ldcg(p.residual + first + i) : 0.0f);
}

// A phase in float64, step by step: first the norm.
__global__ void reference_norm(const double* x, double* y, int n) {
  __shared__ double part[256];
  double sum = 0;
  for (int i = threadIdx.x; i < n; i += 256) sum += x[i] * x[i];
  part[threadIdx.x] = sum;
  __syncthreads();
  sum = 0;
  for (int i = 0; i < 256; i++) sum += part[i];
  for (int i = threadIdx.x; i < n; i += 256) y[i] = x[i] / sqrt(sum / n + 1e-5);
}
__global__ void reference_silu(const double* gate_up, double* y, int n) {
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x)
    y[i] = gate_up[i] / (1 + exp(-gate_up[i])) * gate_up[n + i];
}
__global__ void reference_add(double* x, const double* y, int n) {
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) x[i] += y[i];
}
__global__ void to_double(const float* from, double* to, int n) {
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) to[i] = from[i];
}

struct Shape {
  const char* name;
  int dim, hidden, layers;
};

struct Chain {
  Shape shape;
  std::vector<Weights> gate_up, down;
  float *start, *x[2], *gated;
  double* reference;
};

Chain build(const Shape& s, uint8_t* data) {
  Chain c = {s,
             {},
             {},
             allocate<float>(s.dim),
             {allocate<float>(s.dim), allocate<float>(s.dim)},
             allocate<float>(2 * s.hidden),
             allocate<double>(s.dim)};
  fill_floats<<<8, 256>>>(c.start, s.dim, 5);
  double *normed = allocate<double>(s.hidden), *gated = allocate<double>(2 * s.hidden), *out = allocate<double>(s.dim);
  to_double<<<8, 256>>>(c.start, c.reference, s.dim);
  for (int l = 0; l < s.layers; l++) {
    for (Weights w : {Weights{data, 2 * s.hidden, s.dim}, Weights{data + 4LL * s.hidden * s.dim, s.dim, s.hidden}}) {
      const size_t count = static_cast<size_t>(w.rows) * w.cols;
      fill_weights<<<1056, 256>>>(reinterpret_cast<uint32_t*>(const_cast<uint8_t*>(w.data)), count / 2,
                                  1000 * l + w.rows, 1.7f / __builtin_sqrtf(static_cast<float>(w.cols)));
      (w.cols == s.dim ? c.gate_up : c.down).push_back(w);
    }
    data += 6LL * s.hidden * s.dim;
    reference_norm<<<1, 256>>>(c.reference, normed, s.dim);
    reference_product<<<(2 * s.hidden + 7) / 8, 256>>>(c.gate_up[l], normed, gated);
    reference_silu<<<64, 256>>>(gated, normed, s.hidden);
    reference_product<<<(s.dim + 7) / 8, 256>>>(c.down[l], normed, out);
    reference_add<<<8, 256>>>(c.reference, out, s.dim);
  }
  CHECK(cudaDeviceSynchronize());
  CHECK(cudaFree(normed));
  CHECK(cudaFree(gated));
  CHECK(cudaFree(out));
  return c;
}

template <int kMethod, int kCopy, int kSlots>
void measure(const Chain& c, int blocks, int warps, int shared_limit, cudaStream_t stream) {
  const Shape& s = c.shape;
  constexpr int kStage = 2 * kCopy;
  const int ring = warps * kSlots * kStage;
  auto bytes_of = [&](const Weights& w) {
    return rings_at(w.cols, rows_each(w.rows, 2, blocks), warps, kSlots) + ring;
  };
  const int shared = std::max(bytes_of(c.gate_up[0]), bytes_of(c.down[0]));
  if (shared > shared_limit) return;
  auto* kernel = phase_kernel<kMethod, kCopy, kSlots>;
  CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout, cudaSharedmemCarveoutMaxShared));
  CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared));
  char name[96];
  snprintf(name, sizeof name, "%s %s: %2d warps, %d KB x %2d slots, %3d KB", s.name,
           kMethod == kBulk ? "bulk" : "cp.async", warps, kCopy / 1024, kSlots, ring / 1024);
  printf("%-50s", name);
  double worst = 0;
  for (int prefetch : {0, 4096, 8192, 16384, 0}) {
    cudaGraph_t graph;
    cudaGraphExec_t ready;
    CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    cudaLaunchAttribute attribute = {};
    attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attribute.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3(blocks), config.blockDim = dim3(32 * warps);
    config.dynamicSmemBytes = shared, config.stream = stream;
    config.attrs = &attribute, config.numAttrs = 1;
    for (int l = 0; l < s.layers; l++) {
      const float* from = l == 0 ? c.start : c.x[l % 2];
      const Weights& after = c.gate_up[(l + 1) % s.layers];
      CHECK(
          cudaLaunchKernelEx(&config, kernel, Phase{c.gate_up[l], c.down[l], from, c.gated, nullptr, false, prefetch}));
      CHECK(cudaLaunchKernelEx(&config, kernel,
                               Phase{c.down[l], after, c.gated, c.x[(l + 1) % 2], from, true, prefetch}));
    }
    CHECK(cudaStreamEndCapture(stream, &graph));
    CHECK(cudaGraphInstantiate(&ready, graph, 0));
    CHECK(cudaMemsetAsync(c.gated, 0xff, 8 * s.hidden, stream));
    CHECK(cudaMemsetAsync(c.x[0], 0xff, 4 * s.dim, stream));
    CHECK(cudaMemsetAsync(c.x[1], 0xff, 4 * s.dim, stream));
    const float us = microseconds(7, 5, stream, [&](int) { CHECK(cudaGraphLaunch(ready, stream)); }) / s.layers;
    worst = std::max(worst, distance(c.x[s.layers % 2], c.reference, s.dim));
    printf(" %8.2f", us);
    fflush(stdout);
    CHECK(cudaGraphExecDestroy(ready));
    CHECK(cudaGraphDestroy(graph));
  }
  printf(worst < 1e-4 ? "  %.0e\n" : "  %.1e WRONG\n", worst);
  fflush(stdout);
}

}  // namespace

int main() {
  const cudaDeviceProp properties = device();
  const int blocks = properties.multiProcessorCount, limit = static_cast<int>(properties.sharedMemPerBlockOptin);
  cudaStream_t stream;
  CHECK(cudaStreamCreate(&stream));
  uint8_t* const data = allocate<uint8_t>(size_t{2300} << 20);
  printf("us a layer of gate|up then down on %s, by KB a warp asked of L2 for the phase after; error\n",
         properties.name);
  for (const Shape& s : {Shape{"7B", 4096, 11008, 8}, Shape{"1.1B", 2048, 5632, 22}}) {
    const Chain c = build(s, data);
    const double bytes = 6.0 * s.dim * s.hidden;
    printf("%s: %.1f MB a layer\n%-50s %8s %8s %8s %8s %8s\n", s.name, bytes / 1e6, "", "0", "4", "8", "16", "0 again");
    measure<kAsync, 2048, 3>(c, blocks, 12, limit, stream);
    measure<kAsync, 1024, 4>(c, blocks, 12, limit, stream);
    measure<kAsync, 1024, 7>(c, blocks, 12, limit, stream);
    measure<kAsync, 1024, 5>(c, blocks, 16, limit, stream);
    measure<kBulk, 2048, 3>(c, blocks, 12, limit, stream);
    measure<kBulk, 1024, 7>(c, blocks, 12, limit, stream);
    measure<kBulk, 1024, 5>(c, blocks, 16, limit, stream);
    measure<kBulk, 2048, 2>(c, blocks, 16, limit, stream);
    measure<kBulk, 1024, 3>(c, blocks, 16, limit, stream);
  }
  return 0;
}
