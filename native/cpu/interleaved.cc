#include "interleaved.h"

#include <algorithm>

#include "../core/dtype.h"
#include "kernels/int8_kernels.h"

namespace cqil {
namespace {

constexpr cqil_tensor cqil_layer::* kMatrices[] = {&cqil_layer::wq,    &cqil_layer::wk,     &cqil_layer::wv,
                                                   &cqil_layer::wo,    &cqil_layer::w_gate, &cqil_layer::w_up,
                                                   &cqil_layer::w_down};

int64_t whole_rows(int64_t rows) { return (rows + kInt8Rows - 1) / kInt8Rows * kInt8Rows; }

void interleave(const RoundedKernels& kernels, const cqil_tensor& matrix, uint8_t* to, int64_t first, int64_t end) {
  const int64_t bytes = row_bytes(matrix.dtype, matrix.cols);
  kernels.interleave[matrix.dtype](static_cast<const uint8_t*>(matrix.data) + first * bytes, bytes, end - first,
                                   matrix.cols, to + first * bytes);
}

}  // namespace

InterleavedWeights::InterleavedWeights(const cqil_weights& weights, const RoundedKernels* kernels,
                                       InterleavedWeights* base)
    : kernels_(kernels), base_(base), view_(weights), layers_(weights.layers, weights.layers + weights.shape.n_layers) {
  view_.layers = layers_.data();
  if (!kernels) return;
  auto each_matrix = [&](auto f) {
    for (cqil_layer& layer : layers_)
      for (cqil_tensor cqil_layer::* matrix : kMatrices) f(layer.*matrix);
    f(view_.output);
  };
  uint64_t bytes = 0;
  each_matrix([&](const cqil_tensor& matrix) {
    if (!matrix.data || !kernels->interleave[matrix.dtype] || (base && base->moves_.count(matrix.data)) ||
        moves_.count(matrix.data))
      return;
    Move& move = moves_[matrix.data];
    move.from = matrix;
    move.offset = bytes;
    move.rows_left = matrix.rows;
    bytes += static_cast<uint64_t>(whole_rows(matrix.rows) * row_bytes(matrix.dtype, matrix.cols));
  });
  storage_ = Bytes(bytes);
  prefer_large_pages(storage_.get(), bytes);
  each_matrix([&](cqil_tensor& matrix) {
    if (matrix.data && kernels->interleave[matrix.dtype]) matrix.data = place(matrix.data);
  });
}

uint8_t* InterleavedWeights::place(const void* data) const {
  const auto own = moves_.find(data);
  return own == moves_.end() ? base_->place(data) : storage_.get() + own->second.offset;
}

bool InterleavedWeights::take(const void* data, int64_t first_row, int64_t n_rows) {
  const auto found = moves_.find(data);
  if (found == moves_.end()) return false;
  Move& move = found->second;
  const int64_t end = first_row + std::min(n_rows, move.from.rows - first_row);
  if (move.rows_left > 0 && first_row < end) {
    interleave(*kernels_, move.from, storage_.get() + move.offset, first_row, end);
    move.rows_left -= end - first_row;
  }
  return true;
}

void InterleavedWeights::take_rest() {
  if (base_) base_->take_rest();
  for (auto& move : moves_)
    if (move.second.rows_left > 0) {
      take(move.first, 0, move.second.from.rows);
      move.second.rows_left = 0;
    }
}

}  // namespace cqil
