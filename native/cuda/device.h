// The GPUs this backend can use, and what it needs to know of the one a model lies on.
#pragma once
#include <string>
#include <vector>

#include "failure.h"

namespace cqil::cuda {

struct Device {
  int ordinal = 0;  // the runtime's number
  std::string name;
  int capability_major = 0, capability_minor = 0;
  int multiprocessors = 0;
  uint64_t memory_bytes = 0;
  int32_t shared_bytes = 0;  // that a block may have
  bool cooperative = false;  // may launch a grid that waits for itself
  bool overlaps = false;     // may begin a launch before the one before it has ended: Hopper and later
};

// The devices new enough for this library, in the runtime's order. Throws BACKEND_UNAVAILABLE with the reason when
// there is none; its text has no full stop.
std::vector<Device> usable_devices();

// Makes a device current on this thread, and the former one again at the end of the scope, also when that is left by a
// throw.
class DeviceScope {
 public:
  explicit DeviceScope(int ordinal);
  ~DeviceScope();
  DeviceScope(const DeviceScope&) = delete;

 private:
  int former_ = 0;
};

// Bytes that can still be allocated on the current device.
uint64_t free_bytes();

}  // namespace cqil::cuda
