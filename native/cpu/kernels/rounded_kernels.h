// Products with activations that were rounded, as one table of single-threaded functions per kind of rounding and
// instruction set; a model whose activations are of that kind uses them for the weight formats that have them.
#pragma once
#include <stdint.h>

#include "kernels.h"

namespace cqil {

struct RoundedKernels {
  const char* name;
  bool direct;  // of the rounded values themselves, which is faster than products of floats

  // Values that are rounded together: vectors of other lengths are not rounded, and have no products here.
  int64_t block;
  // Matrices are multiplied from rows on that are multiples of this, whatever they end with, and panel_rows at a time
  // where there are several tokens.
  int64_t row_multiple, panel_rows;

  // One rounded row of n values is kept on a 64-byte boundary, in this many bytes, a multiple of 64.
  int64_t (*row_bytes)(int64_t n);
  // Rounds n values. A value that is not finite stays so, or makes all of the row not a number.
  void (*round)(const float* x, int64_t n, uint8_t* row);

  // By the dtype of the weights, null for formats without products. Rows are in place, or interleaved where interleave
  // is not null; those from row r on stand r * row_bytes behind the first, interleaved or not.
  void (*interleave[CQIL_DTYPE_COUNT])(const uint8_t* rows, int64_t row_bytes, int64_t n_rows, int64_t cols,
                                       uint8_t* interleaved);
  // y[r] = row r . x for n_rows rows.
  void (*matvec[CQIL_DTYPE_COUNT])(const uint8_t* rows, int64_t n_rows, int64_t cols, const uint8_t* x, float* y);
  // What matmul reads: n_rows <= panel_rows, in no more memory than a panel of kPanelRows rows of floats, padded to 32.
  void (*unpack[CQIL_DTYPE_COUNT])(const uint8_t* rows, int64_t n_rows, int64_t cols, uint8_t* panel);
  // y: the product of each row of the panel with each token's rounded x, with the bits of matvec.
  void (*matmul[CQIL_DTYPE_COUNT])(const uint8_t* panel, int64_t n_rows, const TokenVectors<uint8_t>& x, int64_t cols,
                                   const Products& y);
};

}  // namespace cqil
