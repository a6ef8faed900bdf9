#include <algorithm>
#include <functional>

#include "cuda/graph.h"
#include "cuda_probe.h"

namespace cqil::cuda {
namespace {

constexpr size_t kBytes = size_t{4} << 30;  // many times any L2 cache
constexpr int kNodes = 1000, kForks = 200;
constexpr const char* kDoing = "it was measured";

__global__ void empty_kernel() {}

// Four loads of 16 bytes in flight per thread. The sum is stored only if it is one no data gives, so that the loads
// stay.
__global__ void read_kernel(const uint4* data, size_t count, uint32_t* never) {
  const size_t stride = static_cast<size_t>(gridDim.x) * blockDim.x;
  uint32_t sum = 0;
  size_t i = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  for (; i + 3 * stride < count; i += 4 * stride) {
    const uint4 a = data[i], b = data[i + stride], c = data[i + 2 * stride], d = data[i + 3 * stride];
    sum |= a.x | a.y | a.z | a.w | b.x | b.y | b.z | b.w | c.x | c.y | c.z | c.w | d.x | d.y | d.z | d.w;
  }
  for (; i < count; i += stride) sum |= data[i].x | data[i].y | data[i].z | data[i].w;
  if (sum == 0xffffffffu) *never = sum;
}

Event timing_event() {
  cudaEvent_t event = nullptr;
  check(cudaEventCreate(&event), kDoing);
  return Event(event);
}

void launch_empty(cudaStream_t stream) {
  empty_kernel<<<1, 32, 0, stream>>>();
  check(cudaGetLastError(), kDoing);
}

double replay_us(cudaStream_t stream, int steps, const std::function<void()>& body) {
  const GraphExec graph = capture(stream, body);
  return median_ms(stream, 7, [&] { check(cudaGraphLaunch(graph.get(), stream), kDoing); }) * 1000 / steps;
}

double fork_join_us(cudaStream_t stream, int lanes) {
  std::vector<Stream> others;
  std::vector<Event> done;
  const Event forked = make_event();
  for (int lane = 1; lane < lanes; lane++) {
    others.push_back(make_stream());
    done.push_back(make_event());
  }
  return replay_us(stream, kForks, [&] {
    for (int i = 0; i < kForks; i++) {
      check(cudaEventRecord(forked.get(), stream), kDoing);
      launch_empty(stream);
      for (size_t lane = 0; lane < others.size(); lane++) {
        check(cudaStreamWaitEvent(others[lane].get(), forked.get(), 0), kDoing);
        launch_empty(others[lane].get());
        check(cudaEventRecord(done[lane].get(), others[lane].get()), kDoing);
        check(cudaStreamWaitEvent(stream, done[lane].get(), 0), kDoing);
      }
    }
  });
}

}  // namespace

double median_ms(cudaStream_t stream, int runs, const std::function<void()>& enqueue) {
  const Event begin = timing_event(), end = timing_event();
  std::vector<float> times;
  for (int i = 0; i <= runs; i++) {
    check(cudaEventRecord(begin.get(), stream), kDoing);
    enqueue();
    check(cudaEventRecord(end.get(), stream), kDoing);
    check(cudaEventSynchronize(end.get()), kDoing);
    float ms = 0;
    check(cudaEventElapsedTime(&ms, begin.get(), end.get()), kDoing);
    if (i > 0) times.push_back(ms);
  }
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

Probe probe_device(const Workspace& workspace) {
  cudaStream_t const stream = workspace.stream.get();
  Step step = {};  // it computes nothing: barriers need no tokens
  step.workspace = workspace.device;
  step.multiprocessors = workspace.model.device.multiprocessors;
  step.stage_floats = workspace.shared.stage_floats, step.ring_bytes = workspace.shared.ring_bytes;
  Probe probe = {};
  {
    const DeviceArray<uint8_t> from = device_array<uint8_t>(kBytes), to = device_array<uint8_t>(kBytes);
    check(cudaMemsetAsync(from.get(), 0x5a, kBytes, stream), kDoing);
    probe.copy_gbs = 2e-6 * kBytes / median_ms(stream, 7, [&] {
                       check(cudaMemcpyAsync(to.get(), from.get(), kBytes, cudaMemcpyDeviceToDevice, stream), kDoing);
                     });
    for (int blocks : {4, 8, 16}) {
      const double ms = median_ms(stream, 7, [&] {
        read_kernel<<<blocks * step.multiprocessors, 256, 0, stream>>>(
            reinterpret_cast<const uint4*>(from.get()), kBytes / 16, reinterpret_cast<uint32_t*>(to.get()));
        check(cudaGetLastError(), kDoing);
      });
      probe.read_gbs = std::max(probe.read_gbs, 1e-6 * kBytes / ms);
    }
  }
  auto many = [&] {
    for (int i = 0; i < kNodes; i++) launch_empty(stream);
  };
  probe.launch_us = median_ms(stream, 7, many) * 1000 / kNodes;
  probe.graph_node_us = replay_us(stream, kNodes, many);
  probe.fork_join_us[0] = fork_join_us(stream, 2);
  probe.fork_join_us[1] = fork_join_us(stream, 4);
  auto barriers = [&](int n) { return median_ms(stream, 7, [&] { check(launch_barriers(step, n, stream), kDoing); }); };
  probe.barrier_us = (barriers(2 * kNodes) - barriers(kNodes)) * 1000 / kNodes;
  return probe;
}

}  // namespace cqil::cuda
