// What the tests can ask of the emulated device beyond the runtime's own interface.
#pragma once
#include "cuda_emulated_types.h"

namespace emulator {

// What the machine looks like; takes effect at once. code other than cudaSuccess: there is no device, and counting them
// gives that.
struct Machine {
  cudaError_t code = cudaSuccess;
  int driver_version = 13000;
  int devices = 1;
  int major = 9, minor = 0;
  int multiprocessors = 2;
  size_t memory_bytes = size_t{1} << 32;
};
Machine& machine();

// After `calls` more launches and copies have run, the device fails with this code, and with it everything that
// follows.
void fail_after(int calls, cudaError_t code);
void repair();

// Objects of the runtime that nobody has destroyed: allocations, streams, events, graphs.
int live_objects();
// Launches, copies and fills that have run.
int work_done();
// Bytes of the device's memory that are allocated.
size_t device_bytes();

}  // namespace emulator
