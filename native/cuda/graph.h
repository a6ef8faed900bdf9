// Captures what a function enqueues, so that it can be replayed by one launch.
#pragma once
#include <functional>

#include "memory.h"

namespace cqil::cuda {

// body enqueues on stream, and on streams it forks from it and joins again. Nothing runs. Throws Failure, also what
// body throws, with the capture ended.
GraphExec capture(cudaStream_t stream, const std::function<void()>& body);

}  // namespace cqil::cuda
