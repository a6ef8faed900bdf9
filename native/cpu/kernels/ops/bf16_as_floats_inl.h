// Products with activations rounded to bf16, where the processor has none of its own: those of floats. No faster, and
// the same numbers up to the order of sums.
#pragma once
#include "../bf16_kernels.h"
#include "panels_inl.h"
#include "products_inl.h"

namespace cqil {
namespace CQIL_ISA {

constexpr int64_t bf16_row_bytes(int64_t n) { return (padded(n) * 4 + 63) / 64 * 64; }

inline void bf16_round(const float* x, int64_t n, uint8_t* row) {
  for (int64_t i = 0; i < padded(n); i++) {
    uint32_t bits = 0;
    if (i < n) memcpy(&bits, x + i, sizeof bits);
    const uint32_t rounded = (bits & 0x7fffffffu) > 0x7f800000u ? bits | 0x400000u : bits + 0x7fffu + (bits >> 16 & 1u);
    const uint32_t kept = rounded & 0xffff0000u;
    memcpy(row + 4 * i, &kept, sizeof kept);
  }
}

inline void bf16_matvec(const uint8_t* rows, int64_t n_rows, int64_t cols, const uint8_t* x, float* y) {
  matvec<WeightBF16>(rows, cols * 2, n_rows, cols, reinterpret_cast<const float*>(x), y);
}

inline void bf16_unpack(const uint8_t* rows, int64_t n_rows, int64_t cols, uint8_t* panel) {
  unpack<WeightBF16>(rows, cols * 2, n_rows, cols, reinterpret_cast<float*>(panel));
}

inline void bf16_matmul(const uint8_t* panel, int64_t n_rows, const TokenVectors<uint8_t>& x, int64_t cols,
                        const Products& y) {
  matmul(reinterpret_cast<const float*>(panel), n_rows, {reinterpret_cast<const float*>(x.first), x.stride / 4, x.n},
         padded(cols), y);
}

}  // namespace CQIL_ISA
}  // namespace cqil
