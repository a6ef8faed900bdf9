// Streams, events and graphs as dependencies between closures. Work is put off for as long as the rules allow and then
// run in a random order among what is ready, so that an ordering somebody forgot shows up as a wrong result.
#include "cuda_emulated_runtime.h"

#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "cuda_emulator.h"

namespace {

struct Node {
  std::function<void()> run;
  std::vector<std::shared_ptr<Node>> after;
  bool done = false;
};
using NodePointer = std::shared_ptr<Node>;

struct Capture {
  cudaStream_t origin;
  std::vector<NodePointer> nodes;
  bool broken = false;
};

}  // namespace

struct CUstream_st {
  std::vector<NodePointer> tail;  // what the next piece of work comes after
  std::shared_ptr<Capture> capture;
};
struct CUevent_st {
  std::vector<NodePointer> tail;
  std::shared_ptr<Capture> capture;
};
struct CUgraph_st {
  std::vector<NodePointer> nodes;
};
struct CUgraphExec_st {
  std::vector<NodePointer> nodes;
};

namespace {

struct State {
  emulator::Machine machine;
  std::vector<NodePointer> pending;
  std::map<char*, size_t> device_memory, pinned_memory;
  std::set<cudaStream_t> streams;
  int others = 0;  // events and graphs
  size_t used = 0;
  int until_failure = -1;
  cudaError_t failure = cudaSuccess;  // what the device will fail with
  cudaError_t failed = cudaSuccess;   // what it has failed with
  uint64_t random = 88172645463325252u;
} state;

size_t below(size_t n) {
  state.random ^= state.random << 13;
  state.random ^= state.random >> 7;
  state.random ^= state.random << 17;
  return state.random % n;
}

void run(const NodePointer& node) {
  if (state.until_failure > 0 && --state.until_failure == 0) state.failed = state.failure;
  if (state.failed == cudaSuccess) node->run();
  node->done = true;
  node->after.clear();
}

bool ready(const Node& node) {
  for (const NodePointer& earlier : node.after)
    if (!earlier->done) return false;
  return true;
}

// Runs ready work, any of it, until all of `wanted` is done.
void run_until(const std::vector<NodePointer>& wanted) {
  auto waiting = [&] {
    for (const NodePointer& node : wanted)
      if (!node->done) return true;
    return false;
  };
  while (waiting()) {
    std::vector<size_t> candidates;
    for (size_t i = 0; i < state.pending.size(); i++)
      if (ready(*state.pending[i])) candidates.push_back(i);
    const size_t chosen = candidates[below(candidates.size())];
    const NodePointer node = state.pending[chosen];
    state.pending.erase(state.pending.begin() + static_cast<long>(chosen));
    run(node);
  }
}

void run_all() { run_until(std::vector<NodePointer>(state.pending)); }

NodePointer add(cudaStream_t stream, std::function<void()> body) {
  auto node = std::make_shared<Node>();
  node->run = std::move(body);
  node->after = stream->tail;
  stream->tail = {node};
  (stream->capture ? stream->capture->nodes : state.pending).push_back(node);
  return node;
}

bool within(const std::map<char*, size_t>& memory, const void* at) {
  const char* byte = static_cast<const char*>(at);
  auto after = memory.upper_bound(const_cast<char*>(byte));
  if (after == memory.begin()) return false;
  --after;
  return byte < after->first + after->second;
}

cudaError_t allocate(std::map<char*, size_t>& memory, void** out, size_t bytes) {
  void* block = std::aligned_alloc(256, (bytes + 255) / 256 * 256);
  if (!block) return cudaErrorMemoryAllocation;
  std::memset(block, 0xcb, bytes);
  memory[static_cast<char*>(block)] = bytes;
  *out = block;
  return cudaSuccess;
}

template <class T>
cudaError_t make(T** out) {
  *out = new T();
  state.others++;
  return state.failed;
}

template <class T>
cudaError_t destroy(T* object) {
  state.others--;
  delete object;
  return cudaSuccess;
}

void collect(const std::vector<NodePointer>& from, std::set<const Node*>& into) {
  for (const NodePointer& node : from)
    if (into.insert(node.get()).second) collect(node->after, into);
}

}  // namespace

namespace emulator {

Machine& machine() { return state.machine; }

void fail_after(int calls, cudaError_t code) {
  state.until_failure = calls;
  state.failure = code;
}

void repair() {
  state.until_failure = -1;
  state.failed = cudaSuccess;
}

int live_objects() {
  return state.others +
         static_cast<int>(state.streams.size() + state.device_memory.size() + state.pinned_memory.size());
}

// Every emulated kernel launch comes here.
void enqueue(cudaStream_t stream, std::function<void()> body) {
  if (stream) add(stream, std::move(body));
  else body();  // the default stream, which only tests of single kernels use
}

}  // namespace emulator

cudaError_t cudaDriverGetVersion(int* version) {
  *version = state.machine.driver_version;
  return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int* count) {
  if (state.machine.code != cudaSuccess) return state.machine.code;  // and leaves *count alone, as the real one does
  *count = state.machine.devices;
  return cudaSuccess;
}

cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}

cudaError_t cudaSetDevice(int device) { return device < state.machine.devices ? state.failed : cudaErrorInvalidDevice; }

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
  *properties = {"Emulated GPU",
                 state.machine.major,
                 state.machine.minor,
                 state.machine.multiprocessors,
                 state.machine.memory_bytes,
                 232448};
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) {
  *value = 1;
  return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  *total = state.machine.memory_bytes;
  *free = *total - state.used;
  return state.failed;
}

cudaError_t cudaGetLastError() { return state.failed; }

const char* cudaGetErrorName(cudaError_t code) {
  switch (code) {
    case cudaErrorMemoryAllocation: return "cudaErrorMemoryAllocation";
    case cudaErrorIllegalAddress: return "cudaErrorIllegalAddress";
    case cudaErrorStreamCaptureUnjoined: return "cudaErrorStreamCaptureUnjoined";
    default: return "cudaError";
  }
}

const char* cudaGetErrorString(cudaError_t) { return "as emulated"; }

cudaError_t cudaMalloc(void** memory, size_t bytes) {
  if (state.failed != cudaSuccess) return state.failed;
  if (bytes > state.machine.memory_bytes - state.used) return cudaErrorMemoryAllocation;
  state.used += bytes;
  return allocate(state.device_memory, memory, bytes);
}

cudaError_t cudaFree(void* memory) {
  if (!memory) return cudaSuccess;
  run_all();  // as the real one, it waits for the device
  const auto found = state.device_memory.find(static_cast<char*>(memory));
  if (found == state.device_memory.end()) return cudaErrorInvalidValue;
  state.used -= found->second;
  state.device_memory.erase(found);
  std::free(memory);
  return state.failed;
}

cudaError_t cudaMallocHost(void** memory, size_t bytes) { return allocate(state.pinned_memory, memory, bytes); }

cudaError_t cudaFreeHost(void* memory) {
  if (memory && state.pinned_memory.erase(static_cast<char*>(memory)) == 0) return cudaErrorInvalidValue;
  std::free(memory);
  return cudaSuccess;
}

cudaError_t cudaMemset(void* to, int value, size_t bytes) {
  run_all();
  std::memset(to, value, bytes);
  return state.failed;
}

cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind) {
  run_all();
  std::memcpy(to, from, bytes);
  return state.failed;
}

cudaError_t cudaDeviceSynchronize() {
  run_all();
  return state.failed;
}

cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t stream) {
  add(stream, [=] { std::memset(to, value, bytes); });
  return state.failed;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  return cudaMemcpy2DAsync(to, bytes, from, bytes, bytes, 1, kind, stream);
}

// Pageable host memory is read before the call returns, and written by the time it does; pinned memory is touched when
// the stream gets there.
cudaError_t cudaMemcpy2DAsync(void* to, size_t to_pitch, const void* from, size_t from_pitch, size_t width,
                              size_t height, cudaMemcpyKind kind, cudaStream_t stream) {
  if (width * height == 0) return state.failed;
  const bool to_device = kind == cudaMemcpyHostToDevice;
  const void* const device = to_device ? to : from;
  const void* const host = to_device ? from : to;
  if (!within(state.device_memory, device) || within(state.device_memory, host)) return cudaErrorInvalidValue;
  const bool pageable = !within(state.pinned_memory, host);
  if (pageable && stream->capture) return cudaErrorStreamCaptureUnsupported;
  auto copy = [=](const void* source, size_t pitch) {
    for (size_t row = 0; row < height; row++)
      std::memcpy(static_cast<char*>(to) + row * to_pitch, static_cast<const char*>(source) + row * pitch, width);
  };
  if (pageable && to_device) {
    const auto* first = static_cast<const char*>(from);
    auto staged = std::make_shared<std::vector<char>>(first, first + (height - 1) * from_pitch + width);
    add(stream, [=] { copy(staged->data(), from_pitch); });
  } else {
    const NodePointer node = add(stream, [=] { copy(from, from_pitch); });
    if (pageable) run_until({node});
  }
  return state.failed;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  *stream = new CUstream_st();
  state.streams.insert(*stream);
  return state.failed;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  state.streams.erase(stream);
  delete stream;
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  if (stream->capture) {
    stream->capture->broken = true;
    return cudaErrorStreamCaptureUnsupported;
  }
  run_until(stream->tail);
  return state.failed;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  if (event->capture != stream->capture) {
    if (stream->capture) return cudaErrorStreamCaptureIsolation;
    stream->capture = event->capture;
    stream->tail.clear();
  }
  stream->tail.insert(stream->tail.end(), event->tail.begin(), event->tail.end());
  return state.failed;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) { return make(event); }
cudaError_t cudaEventDestroy(cudaEvent_t event) { return destroy(event); }

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  event->tail = stream->tail;
  event->capture = stream->capture;
  return state.failed;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  if (event->capture) return cudaErrorCapturedEvent;
  run_until(event->tail);
  return state.failed;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  if (stream->capture) return cudaErrorInvalidValue;
  run_until(stream->tail);  // a graph's nodes come after nothing outside it
  stream->tail.clear();
  stream->capture = std::make_shared<Capture>();
  stream->capture->origin = stream;
  return state.failed;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  const std::shared_ptr<Capture> capture = stream->capture;
  if (!capture || capture->origin != stream) return cudaErrorStreamCaptureUnmatched;
  std::set<const Node*> joined;
  collect(stream->tail, joined);
  for (cudaStream_t other : state.streams) {
    if (other->capture != capture) continue;
    other->capture = nullptr;  // streams that were forked leave the capture with it
    other->tail.clear();
  }
  if (capture->broken) return cudaErrorStreamCaptureInvalidated;
  if (joined.size() != capture->nodes.size()) return cudaErrorStreamCaptureUnjoined;
  const cudaError_t code = make(graph);
  (*graph)->nodes = capture->nodes;
  return code;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
  const cudaError_t code = make(exec);
  (*exec)->nodes = graph->nodes;
  return code;
}

cudaError_t cudaGraphUpload(cudaGraphExec_t, cudaStream_t) { return state.failed; }

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  std::map<const Node*, NodePointer> copies;
  std::vector<NodePointer> all;
  for (const NodePointer& node : exec->nodes) {
    auto copy = std::make_shared<Node>();
    copy->run = node->run;
    copy->after = stream->tail;
    for (const NodePointer& earlier : node->after) copy->after.push_back(copies.at(earlier.get()));
    copies[node.get()] = copy;
    all.push_back(copy);
    state.pending.push_back(copy);
  }
  stream->tail = std::move(all);
  return state.failed;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) { return destroy(graph); }
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) { return destroy(exec); }
