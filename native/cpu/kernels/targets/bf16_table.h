// The table of the products that the including file has defined.
#pragma once
#include "../bf16_kernels.h"

namespace cqil {
namespace CQIL_ISA {

constexpr RoundedKernels make_bf16_kernels(const char* name, bool direct) {
  RoundedKernels k = {};
  k.name = name;
  k.direct = direct;
  k.block = k.row_multiple = 1;
  k.panel_rows = direct ? kMostPanelRows : kPanelRows;  // of bf16, or of floats
  k.row_bytes = &bf16_row_bytes;
  k.round = &bf16_round;
  k.matvec[CQIL_BF16] = &bf16_matvec;
  k.unpack[CQIL_BF16] = &bf16_unpack;
  k.matmul[CQIL_BF16] = &bf16_matmul;
  return k;
}

}  // namespace CQIL_ISA
}  // namespace cqil
