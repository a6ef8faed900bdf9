// Products with activations rounded to bf16, with AVX512_BF16, by compilers that know it. Compiled with the flags of
// AVX-512; AVX512_BF16 is asked for here, so that no compiler needs a flag for it.
#include "../bf16_kernels.h"

#if CQIL_HAS_AVX512BF16
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx512bf16"))), apply_to = function)
#elif defined(__GNUC__)
#pragma GCC target("avx512bf16")
#endif
#include <math.h>

#define CQIL_ISA isa_bf16_avx512bf16
#define CQIL_MATVEC_ROWS 4
#define CQIL_TILE_ROWS 4
#define CQIL_TILE_TOKENS 6
#include "../simd/f32x16_avx512.h"
#include "../ops/matvec_runs.h"
#include "../ops/panels_inl.h"
#include "../simd/prefetch.h"

namespace cqil {
namespace CQIL_ISA {

constexpr int64_t kStep = 32;
constexpr int64_t padded_to_step(int64_t n) { return (n + kStep - 1) / kStep * kStep; }

// Thirty-two columns.
struct Bf16Panel {
  using Value = uint16_t;
  using Values = __m512i;
  static constexpr int64_t kStep = CQIL_ISA::kStep, kCols = 2 * kPanelCols;  // as many bytes as a chunk of floats
  static inline Values load(const Value* from) { return _mm512_loadu_si512(from); }
  static inline Values load_some(const Value* from, int64_t n) {
    return _mm512_maskz_loadu_epi16(static_cast<__mmask32>((uint64_t{1} << n) - 1), from);
  }
  static inline Register multiply_add(const Values& w, const Values& x, const Register& sum) {
    return {_mm512_dpbf16_ps(sum.v, (__m512bh)w, (__m512bh)x)};
  }
};

int64_t bf16_row_bytes(int64_t n) { return padded_to_step(n) * 2; }

void bf16_round(const float* x, int64_t n, uint8_t* row) {
  for (int64_t i = 0; i < n; i += 16) {
    const F32x16 some = n - i < 16 ? load_partial(x + i, static_cast<int>(n - i)) : load(x + i);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(row + 2 * i), (__m256i)_mm512_cvtneps_pbh(some.v));
  }
  const int64_t end = padded(n) * 2;
  memset(row + end, 0, static_cast<size_t>(bf16_row_bytes(n) - end));
}

template <int R>
inline void bf16_dot_rows(const uint16_t* rows, int64_t apart, int64_t cols, const uint16_t* x, float* y) {
  using P = Bf16Panel;
  F32x16 sum[R];
  CQIL_UNROLL for (int r = 0; r < R; r++) sum[r] = zero();
  int64_t k = 0;
  for (; k + kStep <= cols; k += kStep) {
    const P::Values xk = P::load(x + k);
    CQIL_UNROLL for (int r = 0; r < R; r++) {
      prefetch(reinterpret_cast<const uint8_t*>(rows + r * apart + k) + kRunPrefetchBytes);
      sum[r] = P::multiply_add(P::load(rows + r * apart + k), xk, sum[r]);
    }
  }
  if (k < cols) {
    CQIL_UNROLL for (int r = 0; r < R; r++) {
      sum[r] = P::multiply_add(P::load_some(rows + r * apart + k, cols - k), P::load(x + k), sum[r]);
    }
  }
  store_sums<R>(sum, y);
}

void bf16_matvec(const uint8_t* rows, int64_t n_rows, int64_t cols, const uint8_t* x, float* y) {
  matvec_runs<CQIL_MATVEC_ROWS>(rows, cols * 2, n_rows, y,
                                [&](auto n, const uint8_t* first, int64_t apart, float* sums) {
                                  bf16_dot_rows<decltype(n)::value>(reinterpret_cast<const uint16_t*>(first), apart / 2,
                                                                    cols, reinterpret_cast<const uint16_t*>(x), sums);
                                });
}

// Nothing changes but the place, into chunks.
void bf16_unpack(const uint8_t* rows, int64_t n_rows, int64_t cols, uint8_t* panel) {
  const int64_t n = padded_to_step(cols);
  for (int64_t r = 0; r < n_rows; r++) {
    const uint8_t* row = rows + r * cols * 2;
    for (int64_t from = 0, to; from < n; from = to) {
      to = panel_chunk_end(from, n, Bf16Panel::kCols);
      uint8_t* chunk = panel + (n_rows * from + r * (to - from)) * 2;
      const int64_t there = (to < cols ? to : cols) - from;
      for (int64_t k = 0; k + kStep <= there; k += kStep) {
        prefetch(row + (from + k) * 2 + kPanelPrefetchBytes);
        _mm512_storeu_si512(chunk + 2 * k, _mm512_loadu_si512(row + (from + k) * 2));
      }
      const int64_t rest = there % kStep;
      if (rest)
        _mm512_storeu_si512(chunk + 2 * (there - rest),
                            Bf16Panel::load_some(reinterpret_cast<const uint16_t*>(row) + cols - rest, rest));
    }
  }
}

void bf16_matmul(const uint8_t* panel, int64_t n_rows, const TokenVectors<uint8_t>& x, int64_t cols,
                 const Products& y) {
  panel_matmul<Bf16Panel>(reinterpret_cast<const uint16_t*>(panel), n_rows,
                          {reinterpret_cast<const uint16_t*>(x.first), x.stride / 2, x.n}, padded_to_step(cols), y);
}

}  // namespace CQIL_ISA
}  // namespace cqil

#include "bf16_table.h"

namespace cqil {

constexpr RoundedKernels bf16_avx512bf16 = CQIL_ISA::make_bf16_kernels("avx512bf16", true);

}  // namespace cqil
#ifdef __clang__
#pragma clang attribute pop
#endif
#endif
