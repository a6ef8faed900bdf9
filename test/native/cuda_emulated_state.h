// What the device and the streams of the emulated runtime share: the machine's state, and work that is put off.
#pragma once
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <vector>

#include "cuda_emulated_runtime.h"

namespace emulator {

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

}  // namespace emulator

struct CUstream_st {
  std::vector<emulator::NodePointer> tail;  // what the next piece of work comes after
  std::shared_ptr<emulator::Capture> capture;
};

namespace emulator {

struct State {
  Machine machine;
  std::vector<NodePointer> pending;
  std::map<char*, size_t> device_memory, pinned_memory;
  std::set<cudaStream_t> streams;
  int others = 0;  // events and graphs
  size_t used = 0;
  int work_done = 0;
  int until_failure = -1;
  cudaError_t failure = cudaSuccess;  // what the device will fail with
  cudaError_t failed = cudaSuccess;   // what it has failed with
  uint64_t random = 88172645463325252u;
};
extern State state;

// Runs ready work, any of it, until all of `wanted` is done.
void run_until(const std::vector<NodePointer>& wanted);
void run_all();

// Enters work into a stream, or into the capture that the stream takes part in.
NodePointer add(cudaStream_t stream, std::function<void()> body);

}  // namespace emulator
