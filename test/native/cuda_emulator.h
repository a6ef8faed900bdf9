// Runs the CUDA kernels on the host: what native/cuda/kernels/common/intrinsics.cuh gives with nvcc, this header gives
// with a C++ compiler and CQIL_CUDA_EMULATOR defined. The threads of a block are fibers; a cooperative launch has all
// its blocks at once, any other one block after the other. Threads, warps and blocks take turns in a random order, so
// that an ordering somebody relied on without a barrier shows up as a wrong result. Shared memory starts as NaN and has
// a guard behind it; a misaligned vector access, a barrier that not all threads reach and a launch that no GPU would
// accept end the process with a sentence. Not emulated: time, caches, and the weaker ordering of memory between
// threads.
#pragma once
#include <csetjmp>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <tuple>
#include <utility>
#include <vector>

#include <ucontext.h>

#include "core/half.h"
#include "cuda/kernels/common/launch_shape.h"
#include "cuda_emulated_types.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__
#define CQIL_UNROLL
#define CQIL_UNROLL_FEW
#define CQIL_NO_UNROLL

struct uint2 {
  uint32_t x, y;
};
struct alignas(16) uint4 {
  uint32_t x, y, z, w;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
inline int min(int a, int b) { return a < b ? a : b; }
inline int max(int a, int b) { return a > b ? a : b; }
inline uint2 make_uint2(uint32_t x, uint32_t y) { return {x, y}; }
inline uint4 make_uint4(uint32_t x, uint32_t y, uint32_t z, uint32_t w) { return {x, y, z, w}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

struct EmulatedIndex {
  uint32_t x, y, z;
};
// Indices of the thread that is running.
inline EmulatedIndex threadIdx, blockIdx, gridDim, blockDim;

namespace emulator {

// Enters a launch into a stream; defined by whoever has streams (cuda_emulated_runtime.cc). `run` owns all it needs.
void enqueue(cudaStream_t stream, std::function<void()> run);

[[noreturn]] inline void fail(const char* what) {
  std::fprintf(stderr, "emulated GPU: block (%u, %u, %u), thread %u: %s\n", blockIdx.x, blockIdx.y, blockIdx.z,
               threadIdx.x, what);
  std::abort();
}

constexpr uint32_t kLanes = 32;
constexpr size_t kStackBytes = 128 * 1024, kGuardBytes = 256, kMostShared = 227 * 1024;

// Threads that wait for each other.
struct Barrier {
  uint32_t expected = 0, arrived = 0, generation = 0;
};

// What the lanes of a warp show each other, in two sets used in turn: a lane that is one exchange ahead does not
// disturb.
struct Warp {
  Barrier barrier;
  uint64_t words[2][kLanes];
  uint32_t a[2][kLanes][4], b[2][kLanes][2];
};

struct Block {
  EmulatedIndex index;
  Barrier barrier;
  std::vector<Warp> warps;
  std::vector<uint8_t> memory;
  uint8_t* shared = nullptr;
};

// Bytes on their way to shared memory, of a thread's so-manieth group.
struct Copy {
  void* to;
  const void* from;
  size_t bytes;
  uint64_t group;
};

struct Fiber {
  Block* block = nullptr;
  std::vector<Copy> copies;
  uint64_t groups = 0;  // that are closed
  Warp* warp = nullptr;
  uint32_t thread = 0, exchanges = 0;
  bool started = false, finished = false;
  jmp_buf at;
  ucontext_t context;
};

struct Scheduler {
  jmp_buf at;
  Fiber* running = nullptr;
  const std::function<void()>* kernel = nullptr;
  uint64_t progress = 0;  // barriers passed, threads finished, counters changed
  uint64_t random = 0x9e3779b97f4a7c15u;
  std::vector<std::unique_ptr<uint8_t[]>> stacks;
};
inline Scheduler scheduler;

inline uint32_t random_below(uint32_t n) {
  scheduler.random ^= scheduler.random << 13;
  scheduler.random ^= scheduler.random >> 7;
  scheduler.random ^= scheduler.random << 17;
  return static_cast<uint32_t>(scheduler.random >> 33) % n;
}

inline Fiber& running() { return *scheduler.running; }

inline void yield() {
  if (_setjmp(running().at) == 0) _longjmp(scheduler.at, 1);
}

inline bool complete(Barrier& barrier) {
  if (barrier.expected == 0 || barrier.arrived < barrier.expected) return false;
  barrier.arrived = 0;
  barrier.generation++;
  scheduler.progress++;
  return true;
}
inline void wait(Barrier& barrier) {
  const uint32_t generation = barrier.generation;
  barrier.arrived++;
  if (complete(barrier)) return;
  while (barrier.generation == generation) yield();
}

// A thread that has ended is waited for no longer.
inline void leave(Barrier& barrier) {
  barrier.expected--;
  complete(barrier);
}

inline void fiber_main() {
  (*scheduler.kernel)();
  Fiber& self = running();
  if (!self.copies.empty()) fail("ended with copies to shared memory on their way");
  self.finished = true;
  scheduler.progress++;
  leave(self.warp->barrier);
  leave(self.block->barrier);
  _longjmp(scheduler.at, 1);
}

inline void resume(Fiber& fiber, uint8_t* stack) {
  scheduler.running = &fiber;
  blockIdx = fiber.block->index;
  threadIdx = {fiber.thread, 0, 0};
  if (_setjmp(scheduler.at) != 0) return;
  if (fiber.started) _longjmp(fiber.at, 1);
  fiber.started = true;
  getcontext(&fiber.context);
  fiber.context.uc_stack.ss_sp = stack;
  fiber.context.uc_stack.ss_size = kStackBytes;
  fiber.context.uc_link = nullptr;
  makecontext(&fiber.context, fiber_main, 0);
  setcontext(&fiber.context);
}

// All threads of these blocks to their end.
inline void run_blocks(std::vector<Block>& blocks, uint32_t threads) {
  std::vector<Fiber> fibers(blocks.size() * threads);
  while (scheduler.stacks.size() < fibers.size()) scheduler.stacks.emplace_back(new uint8_t[kStackBytes]);
  for (size_t i = 0; i < fibers.size(); i++) {
    fibers[i].block = &blocks[i / threads];
    fibers[i].thread = static_cast<uint32_t>(i % threads);
    fibers[i].warp = &blocks[i / threads].warps[fibers[i].thread / kLanes];
  }
  const uint32_t warps = static_cast<uint32_t>(fibers.size()) / kLanes;
  std::vector<uint32_t> left(warps, kLanes);
  int idle = 0;
  for (size_t alive = fibers.size(); alive > 0;) {
    const uint64_t before = scheduler.progress;
    const uint32_t first_warp = random_below(warps);
    for (uint32_t w = 0; w < warps; w++) {
      const uint32_t warp = (first_warp + w) % warps, first_lane = random_below(kLanes);
      if (left[warp] == 0) continue;
      // As long as a warp moves, it goes on for a while: most waiting is for its own lanes.
      for (int turn = 0; turn < 64; turn++) {
        const uint64_t start = scheduler.progress;
        for (uint32_t l = 0; l < kLanes; l++) {
          const size_t i = warp * kLanes + (first_lane + l) % kLanes;
          if (fibers[i].finished) continue;
          resume(fibers[i], scheduler.stacks[i].get());
          if (fibers[i].finished) left[warp]--, alive--;
        }
        if (scheduler.progress == start) break;
      }
    }
    idle = scheduler.progress == before ? idle + 1 : 0;
    if (idle > 1000) fail("all threads wait: a barrier that not all of them reach");
  }
}

struct Grid {
  uint32_t x, y, z, threads, shared_bytes;
  bool cooperative;
};

inline void run_grid(const Grid& grid, const std::function<void()>& kernel) {
  scheduler.kernel = &kernel;
  gridDim = {grid.x, grid.y, grid.z};
  blockDim = {grid.threads, 1, 1};
  const uint32_t count = grid.x * grid.y * grid.z, at_once = grid.cooperative ? count : 1;
  const uint32_t first = random_below(count);
  for (uint32_t i = 0; i < count; i += at_once) {
    std::vector<Block> blocks(at_once);
    for (uint32_t b = 0; b < at_once; b++) {
      const uint32_t n = (first + i + b) % count;
      Block& block = blocks[b];
      block.index = {n % grid.x, n / grid.x % grid.y, n / grid.x / grid.y};
      block.barrier.expected = grid.threads;
      block.warps.resize(grid.threads / kLanes);
      for (Warp& warp : block.warps) warp.barrier.expected = kLanes;
      block.memory.assign(grid.shared_bytes + 2 * kGuardBytes, 0xff);
      block.shared =
          block.memory.data() + (kGuardBytes - reinterpret_cast<uintptr_t>(block.memory.data()) % kGuardBytes);
    }
    run_blocks(blocks, grid.threads);
    for (const Block& block : blocks)
      for (const uint8_t* at = block.shared + grid.shared_bytes; at < block.memory.data() + block.memory.size(); at++)
        if (*at != 0xff) fail("wrote behind its shared memory");
  }
}

inline void check_aligned(const void* at, size_t bytes) {
  if (reinterpret_cast<uintptr_t>(at) % bytes != 0) fail("misaligned access to device memory");
}

// The value that lane `from` shows at this exchange.
template <class T>
T exchange(T value, uint32_t from) {
  static_assert(sizeof(T) <= sizeof(uint64_t), "one word");
  Fiber& self = running();
  uint64_t (&words)[kLanes] = self.warp->words[self.exchanges++ % 2];
  std::memcpy(&words[self.thread % kLanes], &value, sizeof value);
  wait(self.warp->barrier);
  std::memcpy(&value, &words[from], sizeof value);
  return value;
}

inline float bf16_low(uint32_t pair) { return cqil::float_from_bits(pair << 16); }
inline float bf16_high(uint32_t pair) { return cqil::float_from_bits(pair & 0xffff0000u); }

}  // namespace emulator

namespace cqil::cuda {

constexpr int kWarpSize = 32;

inline float* shared_floats() { return reinterpret_cast<float*>(emulator::running().block->shared); }

template <class T>
T load_fresh(const T* at) {
  emulator::check_aligned(at, sizeof(T));
  return *at;
}
inline uint4 load_weights(const uint8_t* at) { return load_fresh(reinterpret_cast<const uint4*>(at)); }
inline uint2 load_weights8(const uint8_t* at) { return load_fresh(reinterpret_cast<const uint2*>(at)); }
inline uint16_t load_u16(const uint16_t* at) { return load_fresh(at); }

// A copy is made when it is waited for, and no earlier: who reads before sees what was there.
template <size_t kBytes>
void copy_bytes(void* to, const void* from) {
  emulator::check_aligned(to, kBytes);
  emulator::check_aligned(from, kBytes);
  emulator::running().copies.push_back({to, from, kBytes, emulator::running().groups});
}
inline void copy_async(void* to, const void* from) { copy_bytes<16>(to, from); }
inline void copy_async8(void* to, const void* from) { copy_bytes<8>(to, from); }
inline void commit_copies() { emulator::running().groups++; }
template <int kGroups>
void wait_copies() {
  emulator::Fiber& self = emulator::running();
  size_t left = 0;
  for (const emulator::Copy& copy : self.copies) {
    if (copy.group + kGroups < self.groups) std::memcpy(copy.to, copy.from, copy.bytes);
    else self.copies[left++] = copy;
  }
  self.copies.resize(left);
}
inline void wait_for_launch() {}
inline void allow_next_launch() {}
inline void prefetch_to_l2(const void* at) { static_cast<void>(*static_cast<const volatile uint8_t*>(at)); }

using cqil::bits_from_float;
using cqil::float_from_bits;
inline float float_from_half(uint16_t bits) { return float_from_f16(bits); }
inline uint16_t half_from_float(float value) { return f16_from_float(value); }
inline uint32_t bf16_pair(float low, float high) {
  return static_cast<uint32_t>(cqil::bf16_from_float(low)) | static_cast<uint32_t>(cqil::bf16_from_float(high)) << 16;
}
inline uint32_t multiply_high(uint32_t a, uint32_t b) { return static_cast<uint32_t>(uint64_t{a} * b >> 32); }
inline float divide(float a, float b) { return a / b; }
inline float inverse_root(float value) { return 1.0f / std::sqrt(value); }

inline uint32_t select_bytes(uint32_t a, uint32_t b, uint32_t selector) {
  const uint64_t bytes = static_cast<uint64_t>(b) << 32 | a;
  uint32_t result = 0;
  for (int k = 0; k < 4; k++)
    result |= static_cast<uint32_t>(bytes >> (8 * (selector >> (4 * k) & 7u)) & 0xffu) << (8 * k);
  return result;
}

inline float rounded_product(float a, float b) { return a * b; }
inline float rounded_sum(float a, float b) { return a + b; }
inline int32_t dot_bytes(uint32_t a, uint32_t b, int32_t sum) {
  for (int k = 0; k < 4; k++)
    sum += static_cast<int8_t>(a >> (8 * k) & 0xffu) * static_cast<int8_t>(b >> (8 * k) & 0xffu);
  return sum;
}

template <class T>
T shuffle_xor(T value, int mask) {
  return emulator::exchange(value, emulator::running().thread % emulator::kLanes ^ static_cast<uint32_t>(mask));
}
template <class T>
T shuffle(T value, int from) {
  return emulator::exchange(value, static_cast<uint32_t>(from));
}
inline void sync_warp() { emulator::wait(emulator::running().warp->barrier); }
inline void sync_block() { emulator::wait(emulator::running().block->barrier); }

// As the instruction: every lane's fragments make the two matrices, of which each lane computes its four sums.
inline void mma_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
  emulator::Fiber& self = emulator::running();
  const uint32_t set = self.exchanges++ % 2, lane = self.thread % emulator::kLanes;
  std::memcpy(self.warp->a[set][lane], a, sizeof a);
  std::memcpy(self.warp->b[set][lane], b, sizeof b);
  emulator::wait(self.warp->barrier);
  for (uint32_t i = 0; i < 4; i++) {
    const uint32_t row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
    for (uint32_t k = 0; k < 16; k += 2) {
      // Columns k and k + 1 of `row`, rows k and k + 1 of `column`: which lane and register has them.
      const uint32_t pa = self.warp->a[set][row % 8 * 4 + k % 8 / 2][row / 8 + k / 8 * 2];
      const uint32_t pb = self.warp->b[set][column * 4 + k % 8 / 2][k / 8];
      d[i] += emulator::bf16_low(pa) * emulator::bf16_low(pb) + emulator::bf16_high(pa) * emulator::bf16_high(pb);
    }
  }
}

inline uint32_t arrive(uint32_t* counter, uint32_t amount) {
  const uint32_t old = *counter;
  *counter += amount;
  emulator::scheduler.progress++;
  return old;
}
inline int add_shared(int* counter, int amount) {
  const int old = *counter;
  *counter += amount;
  return old;
}
inline uint32_t load_acquire(const uint32_t* counter) { return *counter; }
inline void pause() { emulator::yield(); }
inline void fence() {}

template <class... Parameters, class... Arguments>
cudaError_t launch(void (*kernel)(Parameters...), const LaunchShape& shape, cudaStream_t stream,
                   Arguments&&... arguments) {
  const bool possible = shape.grid_x > 0 && shape.grid_y > 0 && shape.grid_z > 0 && shape.grid_y < 65536 &&
                        shape.grid_z < 65536 && shape.threads > 0 && shape.threads <= 1024 &&
                        shape.threads % emulator::kLanes == 0;
  if (!possible || shape.shared_bytes > emulator::kMostShared) return cudaErrorInvalidValue;
  const emulator::Grid grid = {shape.grid_x,  shape.grid_y,       shape.grid_z,
                               shape.threads, shape.shared_bytes, shape.cooperative};
  std::tuple<Parameters...> values(std::forward<Arguments>(arguments)...);
  emulator::enqueue(stream, [kernel, grid, values] { emulator::run_grid(grid, [&] { std::apply(kernel, values); }); });
  return cudaSuccess;
}

template <class Kernel>
cudaError_t allow_shared_bytes(Kernel*, int32_t bytes) {
  return static_cast<size_t>(bytes) <= emulator::kMostShared ? cudaSuccess : cudaErrorInvalidValue;
}

}  // namespace cqil::cuda
