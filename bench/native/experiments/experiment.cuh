// What the experiments share: checked calls, medians of event times, inputs from a hash. An experiment is a program by
// itself, which answers one question about a GPU. The library uses none of them.
#pragma once
#include <cuda_runtime.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <algorithm>
#include <vector>

#define CHECK(call)                                                                               \
  do {                                                                                            \
    const cudaError_t status_ = (call);                                                           \
    if (status_ != cudaSuccess) {                                                                 \
      fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #call, cudaGetErrorString(status_)); \
      exit(1);                                                                                    \
    }                                                                                             \
  } while (0)

namespace experiment {

constexpr int kWarpSize = 32;

// Ends the program in one line where there is no GPU.
inline cudaDeviceProp device() {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status != cudaSuccess || count == 0) {
    printf("skipped: no GPU: %s\n", cudaGetErrorString(status));
    exit(0);
  }
  cudaDeviceProp properties;
  CHECK(cudaGetDeviceProperties(&properties, 0));
  return properties;
}

template <class T>
T* allocate(size_t count) {
  void* at = nullptr;
  CHECK(cudaMalloc(&at, count * sizeof(T)));
  return static_cast<T*>(at);
}

template <class T>
std::vector<T> fetch(const T* from, size_t count) {
  std::vector<T> to(count);
  CHECK(cudaMemcpy(to.data(), from, count * sizeof(T), cudaMemcpyDeviceToHost));
  return to;
}

// Microseconds of work(), the median of `rounds` after one more to warm up; each is `each` times in a row.
template <class Work>
float microseconds(int rounds, int each, cudaStream_t stream, Work work) {
  cudaEvent_t begin, end;
  CHECK(cudaEventCreate(&begin));
  CHECK(cudaEventCreate(&end));
  std::vector<float> times;
  for (int r = 0; r <= rounds; r++) {
    CHECK(cudaEventRecord(begin, stream));
    for (int i = 0; i < each; i++) work(r * each + i);
    CHECK(cudaEventRecord(end, stream));
    CHECK(cudaEventSynchronize(end));
    float ms = 0;
    CHECK(cudaEventElapsedTime(&ms, begin, end));
    if (r > 0) times.push_back(1000.0f * ms / each);
  }
  CHECK(cudaEventDestroy(begin));
  CHECK(cudaEventDestroy(end));
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

__host__ __device__ inline uint32_t hash(uint32_t a, uint32_t b) {
  uint32_t h = a * 0x9e3779b9u ^ (b + 0x7f4a7c15u) * 0x85ebca6bu;
  h = (h ^ h >> 15) * 0x2c1b3c6du;
  h = (h ^ h >> 12) * 0x297a2d39u;
  return h ^ h >> 15;
}
// In [-1, 1), the same on host and device.
__host__ __device__ inline float uniform(uint32_t a, uint32_t b) {
  return static_cast<float>(static_cast<int32_t>(hash(a, b)) >> 8) * (1.0f / 8388608.0f);
}

}  // namespace experiment
