// Which instruction sets this build has, which this machine runs, and which one is used.
#include <cstdlib>
#include <cstring>

#include "kernels.h"

#if defined(__x86_64__) || defined(_M_X64)
#define CQIL_X64 1
#ifdef _MSC_VER
#include <immintrin.h>
#include <intrin.h>
#else
#include <cpuid.h>
#endif
#endif

namespace cqil {
namespace {

#if CQIL_X64
struct CpuId {
  unsigned eax, ebx, ecx, edx;
};

CpuId cpu_id(unsigned leaf) {
  CpuId id = {};
#ifdef _MSC_VER
  int registers[4];
  __cpuidex(registers, static_cast<int>(leaf), 0);
  id = {static_cast<unsigned>(registers[0]), static_cast<unsigned>(registers[1]), static_cast<unsigned>(registers[2]),
        static_cast<unsigned>(registers[3])};
#else
  __get_cpuid_count(leaf, 0, &id.eax, &id.ebx, &id.ecx, &id.edx);
#endif
  return id;
}

// The registers that the system saves when it switches threads.
unsigned saved_registers() {
#ifdef _MSC_VER
  return static_cast<unsigned>(_xgetbv(0));
#else
  unsigned low, high;
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return low;
#endif
}

// CPUID says what the processor has, XCR0 whether the system saves the registers. Bits: Intel's manual, volume 2, CPUID.
bool supports(bool avx512) {
  auto bit = [](unsigned word, int i) { return (word >> i & 1) != 0; };
  const CpuId leaf1 = cpu_id(1), leaf7 = cpu_id(7);
  const bool fma = bit(leaf1.ecx, 12), osxsave = bit(leaf1.ecx, 27), f16c = bit(leaf1.ecx, 29), avx2 = bit(leaf7.ebx, 5);
  if (!osxsave || !fma || !f16c || !avx2 || (saved_registers() & 0x6) != 0x6) return false;
  if (!avx512) return true;
  const bool f = bit(leaf7.ebx, 16), dq = bit(leaf7.ebx, 17), bw = bit(leaf7.ebx, 30), vl = bit(leaf7.ebx, 31);
  return f && dq && bw && vl && (saved_registers() & 0xe6) == 0xe6;
}
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
