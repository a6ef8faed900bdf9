// A barrier of all blocks of a cooperative launch.
#pragma once
#include "block.cuh"

namespace cqil::cuda {

// Every barrier adds 2^31 to the counter: block 0 brings all of it but what the others bring, one each. So the top bit turns
// when the last has arrived, the counter is left with its low bits zero for the next barrier or launch, and wrapping around
// does no harm. What any thread wrote before is visible to all threads after.
__device__ __forceinline__ void grid_barrier(uint32_t* counter) {
  sync_block();
  if (threadIdx.x == 0) {
    const uint32_t top = 0x80000000u;
    const uint32_t before = arrive(counter, blockIdx.x == 0 ? top - (gridDim.x - 1) : 1u);
    while (((before ^ load_acquire(counter)) & top) == 0) pause();
  }
  sync_block();
}

}  // namespace cqil::cuda
