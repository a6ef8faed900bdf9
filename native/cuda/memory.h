// Owners of what the runtime allocates. Frees say nothing: after a device is lost they fail, and there is nothing left
// to free.
#pragma once
#include <memory>

#include "failure.h"

namespace cqil::cuda {

struct FreeDevice {
  void operator()(void* p) const { cudaFree(p); }
};
struct FreePinned {
  void operator()(void* p) const { cudaFreeHost(p); }
};
struct DestroyStream {
  void operator()(cudaStream_t stream) const { cudaStreamDestroy(stream); }
};
struct DestroyEvent {
  void operator()(cudaEvent_t event) const { cudaEventDestroy(event); }
};
struct DestroyGraph {
  void operator()(cudaGraph_t graph) const { cudaGraphDestroy(graph); }
};
struct DestroyGraphExec {
  void operator()(cudaGraphExec_t graph) const { cudaGraphExecDestroy(graph); }
};

template <class T>
using DeviceArray = std::unique_ptr<T, FreeDevice>;
template <class T>
using PinnedArray = std::unique_ptr<T, FreePinned>;
using Stream = std::unique_ptr<std::remove_pointer_t<cudaStream_t>, DestroyStream>;
using Event = std::unique_ptr<std::remove_pointer_t<cudaEvent_t>, DestroyEvent>;
using Graph = std::unique_ptr<std::remove_pointer_t<cudaGraph_t>, DestroyGraph>;
using GraphExec = std::unique_ptr<std::remove_pointer_t<cudaGraphExec_t>, DestroyGraphExec>;

// Memory for count elements, not initialised. Throws OUT_OF_MEMORY.
template <class T>
DeviceArray<T> device_array(size_t count) {
  void* memory = nullptr;
  check(cudaMalloc(&memory, count * sizeof(T)), "memory was allocated on it");
  return DeviceArray<T>(static_cast<T*>(memory));
}

// Host memory that copies to and from the device need not stage.
template <class T>
PinnedArray<T> pinned_array(size_t count) {
  void* memory = nullptr;
  check(cudaMallocHost(&memory, count * sizeof(T)), "pinned memory was allocated");
  return PinnedArray<T>(static_cast<T*>(memory));
}

// A stream that does not wait for the default stream.
inline Stream make_stream() {
  cudaStream_t stream = nullptr;
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "a stream was made");
  return Stream(stream);
}

inline Event make_event() {
  cudaEvent_t event = nullptr;
  check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "an event was made");
  return Event(event);
}

}  // namespace cqil::cuda
