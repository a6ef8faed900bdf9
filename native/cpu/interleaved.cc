#include "interleaved.h"

#include <algorithm>

#include "../core/dtype.h"
#include "kernels/int8_kernels.h"

namespace cqil {
namespace {

constexpr cqil_tensor cqil_layer::*kMatrices[] = {&cqil_layer::wq,     &cqil_layer::wk,   &cqil_layer::wv,    &cqil_layer::wo,
                                                  &cqil_layer::w_gate, &cqil_layer::w_up, &cqil_layer::w_down};

int64_t whole_rows(int64_t rows) { return (rows + kInt8Rows - 1) / kInt8Rows * kInt8Rows; }

void interleave(const RoundedKernels& kernels, const cqil_tensor& matrix, uint8_t* to, int64_t first, int64_t end) {
  const int64_t bytes = row_bytes(matrix.dtype, matrix.cols);
  kernels.interleave[matrix.dtype](static_cast<const uint8_t*>(matrix.data) + first * bytes, bytes, end - first, matrix.cols, to + first * bytes);
}

}  // namespace

InterleavedWeights::InterleavedWeights(const cqil_weights& weights, const RoundedKernels* kernels, InterleavedWeights* base)
    : kernels_(kernels), base_(base), view_(weights), layers_(weights.layers, weights.layers + weights.shape.n_layers) {
  view_.layers = layers_.data();
  if (!kernels) return;
  auto each_matrix = [&](auto f) {
    for (cqil_layer& layer : layers_)
      for (cqil_tensor cqil_layer::*matrix : kMatrices) f(layer.*matrix);
    f(view_.output);
  };
  uint64_t bytes = 0;
  each_matrix([&](const cqil_tensor& matrix) {
    if (!kernels->interleave[matrix.dtype] || (base && base->moves_.count(matrix.data)) || moves_.count(matrix.data)) return;
    moves_[matrix.data] = {matrix, bytes, false};
    bytes += static_cast<uint64_t>(whole_rows(matrix.rows) * row_bytes(matrix.dtype, matrix.cols));
  });
  storage_ = Bytes(bytes);
  prefer_large_pages(storage_.get(), bytes);
  each_matrix([&](cqil_tensor& matrix) {
    if (kernels->interleave[matrix.dtype]) matrix.data = place(matrix.data);
  });
}

uint8_t* InterleavedWeights::place(const void* data) const {
  const auto own = moves_.find(data);
  return own == moves_.end() ? base_->place(data) : storage_.get() + own->second.offset;
}

bool InterleavedWeights::take(const void* data, Team* team) {
  const auto found = moves_.find(data);
  if (found == moves_.end()) return false;
  Move& move = found->second;
  if (move.done) return true;
  const int64_t rows = move.from.rows;
  uint8_t* const to = place(data);
  if (!team) {
    interleave(*kernels_, move.from, to, 0, rows);
  } else {
    const int64_t share = whole_rows((rows + team->size() - 1) / team->size());
    team->run([&](int member) {
      const int64_t first = std::min(rows, member * share), end = std::min(rows, first + share);
      if (first < end) interleave(*kernels_, move.from, to, first, end);
    });
  }
  move.done = true;
  return true;
}

void InterleavedWeights::take_rest() {
  if (base_) base_->take_rest();
  for (auto& move : moves_) take(move.first, nullptr);
}

}  // namespace cqil
