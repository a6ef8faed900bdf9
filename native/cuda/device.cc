#include "device.h"

namespace cqil::cuda {
namespace {

// The oldest architecture there is code for: bf16 matrix instructions begin there.
constexpr int kOldestMajor = 8;

int attribute(cudaDeviceAttr which, int ordinal) {
  int value = 0;
  check(cudaDeviceGetAttribute(&value, which, ordinal), "its properties were read");
  return value;
}

Device describe(int ordinal) {
  cudaDeviceProp properties = {};
  check(cudaGetDeviceProperties(&properties, ordinal), "its properties were read");
  Device device;
  device.ordinal = ordinal;
  device.name = properties.name;
  device.capability_major = properties.major;
  device.capability_minor = properties.minor;
  device.multiprocessors = properties.multiProcessorCount;
  device.memory_bytes = properties.totalGlobalMem;
  device.shared_bytes = static_cast<int32_t>(properties.sharedMemPerBlockOptin);
  device.overlaps = properties.major >= 9;
  device.cooperative = attribute(cudaDevAttrCooperativeLaunch, ordinal) != 0;
  return device;
}

}  // namespace

std::vector<Device> usable_devices() {
  int driver = 0, count = 0;
  cudaDriverGetVersion(&driver);  // leaves 0 where there is no driver
  const cudaError_t code = cudaGetDeviceCount(&count);
  cudaGetLastError();
  if (code != cudaSuccess) throw Failure(CQIL_BACKEND_UNAVAILABLE, unavailable_reason(code, driver));
  std::vector<Device> usable;
  std::string old;
  for (int ordinal = 0; ordinal < count; ordinal++) {
    Device device = describe(ordinal);
    if (device.capability_major >= kOldestMajor) {
      usable.push_back(std::move(device));
      continue;
    }
    old += (old.empty() ? "" : ", ") + device.name + " has compute capability " +
           std::to_string(device.capability_major) + "." + std::to_string(device.capability_minor);
  }
  if (usable.empty()) {
    const std::string reason =
        count == 0 ? unavailable_reason(cudaErrorNoDevice, driver) : old + ", expected 8.0 or newer";
    throw Failure(CQIL_BACKEND_UNAVAILABLE, reason);
  }
  return usable;
}

DeviceScope::DeviceScope(int ordinal) {
  check(cudaGetDevice(&former_), "the current device was asked for");
  check(cudaSetDevice(ordinal), "it was made current");
}

DeviceScope::~DeviceScope() { cudaSetDevice(former_); }

uint64_t free_bytes() {
  size_t free = 0, total = 0;
  check(cudaMemGetInfo(&free, &total), "its free memory was asked for");
  return free;
}

}  // namespace cqil::cuda
