// Which instruction sets this build has, which this machine runs, and which one is used.
#include <cstdlib>
#include <cstring>

#include "../bf16_kernels.h"
#include "../int8_kernels.h"
#include "../kernels.h"

#if defined(__x86_64__) || defined(_M_X64)
#define CQIL_X64 1
#ifdef _MSC_VER
#include <immintrin.h>
#include <intrin.h>
#else
#include <cpuid.h>
#endif
#elif defined(__aarch64__) || defined(_M_ARM64)
#define CQIL_ARM64 1
#ifdef __linux__
#include <sys/auxv.h>
#endif
#endif

namespace cqil {
namespace {

#if CQIL_X64
struct CpuId {
  unsigned eax, ebx, ecx, edx;
};

CpuId cpu_id(unsigned leaf, unsigned subleaf = 0) {
  CpuId id = {};
#ifdef _MSC_VER
  int registers[4];
  __cpuidex(registers, static_cast<int>(leaf), static_cast<int>(subleaf));
  id = {static_cast<unsigned>(registers[0]), static_cast<unsigned>(registers[1]), static_cast<unsigned>(registers[2]),
        static_cast<unsigned>(registers[3])};
#else
  __get_cpuid_count(leaf, subleaf, &id.eax, &id.ebx, &id.ecx, &id.edx);
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

bool bit(unsigned word, int i) { return (word >> i & 1) != 0; }

// CPUID says what the processor has, XCR0 whether the system saves the registers. Bits: Intel's manual, volume 2,
// CPUID.
bool has_avx2() {
  const CpuId leaf1 = cpu_id(1), leaf7 = cpu_id(7);
  const bool fma = bit(leaf1.ecx, 12), osxsave = bit(leaf1.ecx, 27), f16c = bit(leaf1.ecx, 29),
             avx2 = bit(leaf7.ebx, 5);
  return osxsave && fma && f16c && avx2 && (saved_registers() & 0x6) == 0x6;
}
bool has_avx512() {
  const CpuId leaf7 = cpu_id(7);
  const bool f = bit(leaf7.ebx, 16), dq = bit(leaf7.ebx, 17), bw = bit(leaf7.ebx, 30), vl = bit(leaf7.ebx, 31);
  return has_avx2() && f && dq && bw && vl && (saved_registers() & 0xe6) == 0xe6;
}
bool has_avx512_vnni() { return has_avx512() && bit(cpu_id(7).ecx, 11); }
#if CQIL_HAS_AVX512BF16
bool has_avx512_bf16() { return has_avx512_vnni() && bit(cpu_id(7, 1).eax, 5); }
#endif
#if CQIL_HAS_AVXVNNI
bool has_avx_vnni() { return has_avx2() && bit(cpu_id(7, 1).eax, 4); }
#endif
#endif

#if CQIL_ARM64 && CQIL_HAS_DOTPROD
bool has_dot_product() {
#if defined(__APPLE__)
  return true;
#elif defined(__linux__)
  constexpr unsigned long kAsimdDp = 1ul << 20;  // HWCAP_ASIMDDP
  return (getauxval(AT_HWCAP) & kAsimdDp) != 0;
#else
  return false;
#endif
}
#endif

}  // namespace

IsaList isa_list() {
#if CQIL_X64
  static const Isa items[] = {
      {"plain", &kernels_plain, &bf16_plain, &int8_plain, true},
      {"avx2", &kernels_avx2, &bf16_avx2, &int8_avx2, has_avx2()},
#if CQIL_HAS_AVXVNNI
      {"avxvnni", &kernels_avx2, &bf16_avx2, &int8_avxvnni, has_avx_vnni()},
#endif
      {"avx512", &kernels_avx512, &bf16_avx512, &int8_avx2, has_avx512()},
      {"avx512vnni", &kernels_avx512, &bf16_avx512, &int8_avx512vnni, has_avx512_vnni()},
#if CQIL_HAS_AVX512BF16
      {"avx512bf16", &kernels_avx512, &bf16_avx512bf16, &int8_avx512vnni, has_avx512_bf16()},
#endif
  };
#elif CQIL_ARM64
  static const Isa items[] = {
      {"plain", &kernels_plain, &bf16_plain, &int8_plain, true},
      {"neon", &kernels_neon, &bf16_neon, &int8_neon, true},
#if CQIL_HAS_DOTPROD
      {"dotprod", &kernels_neon, &bf16_neon, &int8_dotprod, has_dot_product()},
#endif
  };
#else
  static const Isa items[] = {{"plain", &kernels_plain, &bf16_plain, &int8_plain, true}};
#endif
  return {items, static_cast<int>(sizeof items / sizeof items[0])};
}

const Isa& best_isa() {
  const IsaList list = isa_list();
  const char* wanted = std::getenv("CQIL_ISA");
  const Isa* best = nullptr;
  for (int i = 0; i < list.count; i++) {
    if (!list.items[i].supported) continue;
    best = &list.items[i];
    if (wanted && std::strcmp(wanted, best->name) == 0) break;
  }
  return *best;
}

bool multiplies_bf16(const Isa& isa) { return isa.bf16->direct; }

}  // namespace cqil
