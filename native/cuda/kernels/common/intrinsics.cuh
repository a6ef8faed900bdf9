// Everything that is PTX or an intrinsic, each behind a function, so that no kernel names one and the host emulator
// (test/native/cuda_emulator.h) can give its own.
#pragma once
#include <stdint.h>

#include "launch_shape.h"
#include "../../platform.h"

#ifndef CQIL_CUDA_EMULATOR
#include <cuda_fp16.h>

#include <utility>

#define CQIL_UNROLL _Pragma("unroll")
#define CQIL_UNROLL_FEW _Pragma("unroll 4")
#define CQIL_NO_UNROLL _Pragma("unroll 1")

namespace cqil::cuda {

constexpr int kWarpSize = 32;

extern __shared__ uint4 shared_arena[];
// The block's dynamic shared memory.
__device__ __forceinline__ float* shared_floats() { return reinterpret_cast<float*>(shared_arena); }

// Sixteen bytes, or eight, on their way to shared memory by L2 alone; both addresses are multiples of that. They are
// there once wait_copies says so to the thread that asked, and a barrier to others.
__device__ __forceinline__ void copy_async(void* to, const void* from) {
  asm volatile(
      "cp.async.cg.shared.global.L2::128B [%0], [%1], 16;" ::"r"(static_cast<uint32_t>(__cvta_generic_to_shared(to))),
      "l"(from)
      : "memory");
}
__device__ __forceinline__ void copy_async8(void* to, const void* from) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 8;" ::"r"(static_cast<uint32_t>(__cvta_generic_to_shared(to))),
               "l"(from)
               : "memory");
}
// Ends a group of copies, which may be empty.
__device__ __forceinline__ void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Until at most kGroups of this thread's latest groups are on their way.
template <int kGroups>
__device__ __forceinline__ void wait_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kGroups) : "memory");
}

// Until the launch before this one in its stream has ended and what it wrote can be seen; and from when on the launch
// after this one may begin, as far as its own wait. Hopper and later: elsewhere launches follow each other whole.
__device__ __forceinline__ void wait_for_launch() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
__device__ __forceinline__ void allow_next_launch() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

// Weights: read once, so they pass by L1.
__device__ __forceinline__ uint4 load_weights(const uint8_t* at) {
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(at));
  return v;
}
__device__ __forceinline__ uint2 load_weights8(const uint8_t* at) { return __ldg(reinterpret_cast<const uint2*>(at)); }
__device__ __forceinline__ uint16_t load_u16(const uint16_t* at) { return __ldg(at); }

// What another block may have written in this launch comes from L2: L1 is not kept coherent.
template <class T>
__device__ __forceinline__ T load_fresh(const T* at) {
  return __ldcg(at);
}

__device__ __forceinline__ void prefetch_to_l2(const void* at) { asm volatile("prefetch.global.L2 [%0];" ::"l"(at)); }

__device__ __forceinline__ float float_from_bits(uint32_t bits) { return __uint_as_float(bits); }
__device__ __forceinline__ uint32_t bits_from_float(float value) { return __float_as_uint(value); }
__device__ __forceinline__ float float_from_half(uint16_t bits) { return __half2float(__ushort_as_half(bits)); }
__device__ __forceinline__ uint16_t half_from_float(float value) { return __half_as_ushort(__float2half_rn(value)); }
// To the nearest bf16, ties to even: `low` in the low half.
__device__ __forceinline__ uint32_t bf16_pair(float low, float high) {
  uint32_t pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}

// The upper half of the product.
__device__ __forceinline__ uint32_t multiply_high(uint32_t a, uint32_t b) { return __umulhi(a, b); }

// Rounded each by itself: never made one operation with what follows, which compilers decide differently from place to
// place. Where kernels must agree to the bit, a sum of products is written with fmaf or with these.
__device__ __forceinline__ float rounded_product(float a, float b) { return __fmul_rn(a, b); }
__device__ __forceinline__ float rounded_sum(float a, float b) { return __fadd_rn(a, b); }
// To two units in the last place, without the subroutines of exact division and roots.
__device__ __forceinline__ float divide(float a, float b) { return __fdividef(a, b); }
__device__ __forceinline__ float inverse_root(float value) { return rsqrtf(value); }

// Byte k of the result is byte (selector >> 4 k & 7) of the eight bytes b:a, a lowest.
__device__ __forceinline__ uint32_t select_bytes(uint32_t a, uint32_t b, uint32_t selector) {
  return __byte_perm(a, b, selector);
}

// sum + the products of the four signed bytes of a with those of b.
__device__ __forceinline__ int32_t dot_bytes(uint32_t a, uint32_t b, int32_t sum) {
  return __dp4a(static_cast<int>(a), static_cast<int>(b), sum);
}

template <class T>
__device__ __forceinline__ T shuffle_xor(T value, int mask) {
  return __shfl_xor_sync(0xffffffffu, value, mask);
}
// The value of one lane, in all.
template <class T>
__device__ __forceinline__ T shuffle(T value, int from) {
  return __shfl_sync(0xffffffffu, value, from);
}
__device__ __forceinline__ void sync_warp() { __syncwarp(); }
__device__ __forceinline__ void sync_block() { __syncthreads(); }

// d += a b for a 16 x 16 (row-major) and b 16 x 8 (column-major) in bf16, d 16 x 8 in float32. With g = lane_id / 4 and
// t = lane_id % 4: a[0..3] hold rows g, g + 8, g, g + 8 at columns 2t (+8 for the last two) and the next one; b[0..1]
// rows 2t (+8) and the next one of column g; d[0..3] row g (+8 for the last two), columns 2t and 2t + 1.
__device__ __forceinline__ void mma_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, "
      "%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// Adds to a counter that blocks meet at and gives its old value. What this thread wrote before is visible to who sees
// the sum.
__device__ __forceinline__ uint32_t arrive(uint32_t* counter, uint32_t amount) {
  uint32_t old;
  asm volatile("atom.add.acq_rel.gpu.global.u32 %0, [%1], %2;" : "=r"(old) : "l"(counter), "r"(amount) : "memory");
  return old;
}
__device__ __forceinline__ uint32_t load_acquire(const uint32_t* counter) {
  uint32_t value;
  asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(counter) : "memory");
  return value;
}
// Adds to a counter in shared memory and gives its old value.
__device__ __forceinline__ int add_shared(int* counter, int amount) { return atomicAdd(counter, amount); }
// Between two looks at a counter in a loop.
__device__ __forceinline__ void pause() {}
__device__ __forceinline__ void fence() { __threadfence(); }

template <class... Parameters, class... Arguments>
cudaError_t launch(void (*kernel)(Parameters...), const LaunchShape& shape, cudaStream_t stream,
                   Arguments&&... arguments) {
  cudaLaunchAttribute attribute = {};
  attribute.id =
      shape.cooperative ? cudaLaunchAttributeCooperative : cudaLaunchAttributeProgrammaticStreamSerialization;
  if (shape.cooperative) attribute.val.cooperative = 1;
  else attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(shape.grid_x, shape.grid_y, shape.grid_z);
  config.blockDim = dim3(shape.threads);
  config.dynamicSmemBytes = shape.shared_bytes;
  config.stream = stream;
  config.attrs = &attribute;
  config.numAttrs = shape.cooperative || shape.overlaps ? 1 : 0;
  return cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...);
}

template <class Kernel>
cudaError_t allow_shared_bytes(Kernel* kernel, int32_t bytes) {
  // All kernels divide L1 alike: a multiprocessor changes it only when it is empty.
  const cudaError_t status =
      cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout, cudaSharedmemCarveoutMaxShared);
  if (status != cudaSuccess) return status;
  return cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
}

}  // namespace cqil::cuda
#endif
