// Asking for memory before it is read.
#pragma once
#include <stdint.h>

namespace cqil {
namespace CQIL_ISA {

// How far ahead of the weights being read, at least, others are asked for: memory is about that far away.
constexpr int64_t kPrefetchBytes = 12288;

// How far ahead where hardware prefetchers are at work too, and need no more than a start: as measured on Zen 5 and on
// Zen 3.
#ifdef __AVX512F__
constexpr int64_t kRunPrefetchBytes = 1024;
#else
constexpr int64_t kRunPrefetchBytes = 384;
#endif

// How far ahead for large blocks: in each of several runs of them, and in one alone.
constexpr int64_t kBlockPrefetchBytes = 3072, kLoneBlockPrefetchBytes = 6144;

// How far ahead for panels, which are short, so that hardware prefetchers begin anew with each.
constexpr int64_t kPanelPrefetchBytes = 2048;

inline void prefetch(const uint8_t* at) {
#if defined(__GNUC__) || defined(__clang__)
  __builtin_prefetch(at);
#elif defined(_M_X64)
  _mm_prefetch(reinterpret_cast<const char*>(at), _MM_HINT_T0);
#else
  (void)at;
#endif
}

inline void prefetch_range(const uint8_t* at, int64_t bytes) {
  for (int64_t i = 0; i < bytes; i += 64) prefetch(at + i);
}

}  // namespace CQIL_ISA
}  // namespace cqil
