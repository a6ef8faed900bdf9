// What a GPU charges for memory and for every dependent step, measured before any model is.
#pragma once
#include "cuda/workspace.h"

namespace cqil::cuda {

struct Probe {
  double read_gbs;         // one kernel reading far more than the L2 cache holds
  double copy_gbs;         // device to device, bytes read plus bytes written
  double launch_us;        // one empty kernel after another on a stream
  double graph_node_us;    // the same, replayed by a graph
  double fork_join_us[2];  // in a graph: forking to 2 and to 4 streams, an empty kernel on each, joining
  double barrier_us;       // all blocks of a persistent kernel waiting for each other
};

// workspace: any, for the barrier. Throws Failure.
Probe probe_device(const Workspace& workspace);

// Milliseconds that `enqueue` takes on the stream, by events: the median of several runs after a warm-up.
double median_ms(cudaStream_t stream, int runs, const std::function<void()>& enqueue);

}  // namespace cqil::cuda
