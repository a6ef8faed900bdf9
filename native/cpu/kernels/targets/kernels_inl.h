// The kernels, written once over F32x16 and compiled once per instruction set by the file that includes this one.
// That file defines CQIL_ISA (a namespace), CQIL_MATVEC_ROWS (rows whose sums run side by side, enough to hide the
// latency of an addition), CQIL_TILE_ROWS and CQIL_TILE_TOKENS (the register tile of matmul) and CQIL_ATTEND_SUMS
// (vectors of sums that attention may keep in registers).
#pragma once
#include "../ops/attention_inl.h"
#include "../ops/elementwise_inl.h"
#include "../ops/panels_inl.h"
#include "../ops/products_inl.h"

namespace cqil {
namespace CQIL_ISA {

// constexpr, so that no instruction of this set runs before dispatch has asked for it.
constexpr Kernels make_kernels(const char* name) {
  Kernels k = {};
  k.name = name;
#define CQIL_FORMAT(dtype, W)   \
  k.matvec[dtype] = &matvec<W>; \
  k.unpack[dtype] = &unpack<W>;
  CQIL_FORMAT(CQIL_F32, WeightF32)
  CQIL_FORMAT(CQIL_F16, WeightF16)
  CQIL_FORMAT(CQIL_BF16, WeightBF16)
  CQIL_FORMAT(CQIL_Q8_0, WeightQ8_0)
  CQIL_FORMAT(CQIL_Q4_0, WeightQ4_0)
  CQIL_FORMAT(CQIL_Q4_K, WeightQ4_K)
  CQIL_FORMAT(CQIL_Q5_K, WeightQ5_K)
  CQIL_FORMAT(CQIL_Q6_K, WeightQ6_K)
#undef CQIL_FORMAT
#define CQIL_KV_FORMAT(dtype, Kv)    \
  k.store_kv[dtype] = &store_kv<Kv>; \
  k.attend[dtype] = &attend<Kv>;
  CQIL_KV_FORMAT(CQIL_F32, KvF32)
  CQIL_KV_FORMAT(CQIL_F16, KvF16)
  CQIL_KV_FORMAT(CQIL_Q8_0, KvQ8_0)
#undef CQIL_KV_FORMAT
  k.matmul = &matmul;
  k.rms_norm = &rms_norm;
  k.add = &add_to;
  k.activate_mul[CQIL_SILU] = &silu_mul;
  k.activate_mul[CQIL_GELU_TANH] = &gelu_tanh_mul;
  k.cap = &cap;
  k.log_sum_exp = &log_sum_exp;
  return k;
}

}  // namespace CQIL_ISA
}  // namespace cqil
