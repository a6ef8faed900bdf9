// The device and its memory: what the machine says of itself, allocations, and copies to and from them.
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "cuda_emulated_state.h"

using emulator::add;
using emulator::NodePointer;
using emulator::run_all;
using emulator::run_until;
using emulator::state;

namespace {

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

}  // namespace

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
  if (kind == cudaMemcpyDeviceToDevice) {
    if (!within(state.device_memory, to) || !within(state.device_memory, from) || height != 1)
      return cudaErrorInvalidValue;
    add(stream, [=] { std::memcpy(to, from, width); });
    return state.failed;
  }
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
