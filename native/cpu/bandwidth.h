// How fast this machine's threads read memory: the floor every decode is measured against.
#pragma once
#include <cstdint>

namespace cqil {

// GB/s of this many threads, each summing its own bytes once; the best of a few passes. Throws std::bad_alloc.
double measure_read_bandwidth(int threads, uint64_t bytes_per_thread);

}  // namespace cqil
