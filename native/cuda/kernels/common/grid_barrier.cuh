// A barrier of all blocks of a cooperative launch.
#pragma once
#include "block.cuh"

namespace cqil::cuda {

// Every barrier adds 2^31 to the counter: block 0 brings all of it but what the others bring, one each. So the top bit
// turns when the last has arrived, the counter is left with its low bits zero for the next barrier or launch, and
// wrapping around does no harm. What any thread wrote before arrive() is visible to all threads after wait().
class GridBarrier {
 public:
  __device__ __forceinline__ explicit GridBarrier(uint32_t* counter) : counter_(counter) {}
  __device__ __forceinline__ void arrive() {
    sync_block();
    if (threadIdx.x == 0) before_ = cuda::arrive(counter_, blockIdx.x == 0 ? kTop - (gridDim.x - 1) : 1u);
  }
  __device__ __forceinline__ void wait() const {
    if (threadIdx.x == 0)
      while (((before_ ^ load_acquire(counter_)) & kTop) == 0) pause();
    sync_block();
  }

 private:
  static constexpr uint32_t kTop = 0x80000000u;
  uint32_t* counter_;
  uint32_t before_ = 0;
};

}  // namespace cqil::cuda
