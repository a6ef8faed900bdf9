// Which instruction sets this build has, which this machine runs, and which one is used.
#include <cstdlib>
#include <cstring>

#include "kernels.h"

#if defined(__x86_64__) || defined(_M_X64)
#define CQIL_X64 1
#if defined(_MSC_VER) && !defined(__clang__)
#include <immintrin.h>
#include <intrin.h>
#endif
#endif

namespace cqil {

namespace {

#if CQIL_X64
#if defined(_MSC_VER) && !defined(__clang__)
// CPUID says what the processor has, XCR0 whether the system saves the registers.
bool supports(bool avx512) {
  int leaf1[4], leaf7[4];
  __cpuid(leaf1, 1);
  __cpuidex(leaf7, 7, 0);
  const bool osxsave = leaf1[2] >> 27 & 1, fma = leaf1[2] >> 12 & 1, f16c = leaf1[2] >> 29 & 1, avx2 = leaf7[1] >> 5 & 1;
  if (!osxsave || !fma || !f16c || !avx2) return false;
  const unsigned long long saved = _xgetbv(0);
  if ((saved & 0x6) != 0x6) return false;
  const int f_dq_bw_vl = 1 << 16 | 1 << 17 | 1 << 30 | static_cast<int>(1u << 31);
  return !avx512 || ((leaf7[1] & f_dq_bw_vl) == f_dq_bw_vl && (saved & 0xe6) == 0xe6);
}
#else
bool supports(bool avx512) {
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  return avx2 && (!avx512 || (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                              __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")));
}
#endif
#endif

}  // namespace

IsaList isa_list() {
#if CQIL_X64
  static const Isa items[] = {{"plain", &kernels_plain, true},
                              {"avx2", &kernels_avx2, supports(false)},
                              {"avx512", &kernels_avx512, supports(true)}};
#elif defined(__aarch64__) || defined(_M_ARM64)
  static const Isa items[] = {{"plain", &kernels_plain, true}, {"neon", &kernels_neon, true}};
#else
  static const Isa items[] = {{"plain", &kernels_plain, true}};
#endif
  return {items, static_cast<int>(sizeof items / sizeof items[0])};
}

const Kernels& best_kernels() {
  const IsaList list = isa_list();
  const char* wanted = std::getenv("CQIL_ISA");
  const Kernels* best = nullptr;
  for (int i = 0; i < list.count; i++) {
    if (!list.items[i].supported) continue;
    best = list.items[i].kernels;
    if (wanted && std::strcmp(wanted, list.items[i].name) == 0) break;
  }
  return *best;
}

}  // namespace cqil
