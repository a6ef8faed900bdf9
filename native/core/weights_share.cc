// What one of several ranks keeps of a model's tensors.
#include <algorithm>
#include <cstring>
#include <new>

#include "dtype.h"
#include "error.h"
#include "weights.h"

namespace cqil {

void Weights::keep_share(const RankSpec& rank) {
  const cqil_shape& shape = view_.shape;
  shares_.emplace(compile_program(rank.plan, shape.n_layers), shape, cuts_of(view_), rank.split, rank.ratios);
  const cqil_ranks ranks = shares_->view(rank.rank);
  if (rank.rank < 0 || rank.rank >= ranks.n_ranks)
    throw Error("INVALID_ARGUMENT",
                "There is no rank " + std::to_string(rank.rank) + " of " + std::to_string(ranks.n_ranks) + ".");
  for (int32_t i = 0; i < shape.n_layers; i++) {
    int32_t first = 0;  // the rank that adds the output projection's bias, which is to be added once
    while (!holds(ranks, first, i, Part::kAttention)) first++;
    const bool adds_bias = held(ranks, i, Part::kAttention) != Held::kInSlices || first == rank.rank;
    keep_layer(layers_[static_cast<size_t>(i)], share_on(ranks, rank.rank, i), adds_bias);
  }
  keep_vocabulary(ranks.vocabulary[rank.rank], ranks.vocabulary[rank.rank + 1]);
  bytes_ = 0;
  for (const Rows& rows : stored_) bytes_ += rows.bytes();
}

void Weights::keep_layer(cqil_layer& layer, const cqil_share& share, bool adds_bias) {
  const cqil_shape& shape = view_.shape;
  const int64_t head = shape.head_dim, group = shape.n_heads / shape.n_kv_heads * head;
  const int64_t kv = share.first_kv_head, n_kv = share.n_kv_heads;
  keep_rows(layer.wq, kv * group, n_kv * group);
  keep_rows(layer.wk, kv * head, n_kv * head);
  keep_rows(layer.wv, kv * head, n_kv * head);
  keep_columns(layer.wo, kv * group, n_kv * group);
  keep_rows(layer.w_gate, share.first_hidden, share.n_hidden);
  keep_rows(layer.w_up, share.first_hidden, share.n_hidden);
  keep_columns(layer.w_down, share.first_hidden, share.n_hidden);
  // Vectors stay whole in memory; the view shows the rank's share of them.
  auto from = [&](cqil_tensor& vector, int64_t first, int64_t count) {
    if (vector.data) vector = {static_cast<const float*>(vector.data) + first, CQIL_F32, 1, count};
  };
  from(layer.bq, kv * group, n_kv * group);
  from(layer.bk, kv * head, n_kv * head);
  from(layer.bv, kv * head, n_kv * head);
  if (!adds_bias) layer.bo = {};
}

std::vector<Weights::Rows>::iterator Weights::stored(const void* data) {
  return std::find_if(stored_.begin(), stored_.end(), [&](const Rows& rows) { return rows.tensor == data; });
}

void Weights::keep_rows(cqil_tensor& matrix, int64_t first, int64_t count) {
  if (count == matrix.rows) return;
  const auto rows = stored(matrix.data);
  if (count == 0) {
    if (spec_.random) forget(rows->tensor);
    stored_.erase(rows);
    matrix = {nullptr, matrix.dtype, 0, matrix.cols};
    return;
  }
  const uint8_t* data = rows->tensor + static_cast<uint64_t>(first) * rows->row_bytes;
  if (spec_.random) {
    const uint64_t size = static_cast<uint64_t>(count) * rows->row_bytes;
    std::unique_ptr<uint8_t[]> kept(new uint8_t[size]);
    std::memcpy(kept.get(), data, size);
    forget(rows->tensor);
    data = kept.get();
    owned_.push_back(std::move(kept));
  }
  *rows = {data, 0, count, rows->row_bytes};
  matrix.data = data;
  matrix.rows = count;
}

void Weights::keep_columns(cqil_tensor& matrix, int64_t first, int64_t count) {
  if (count == matrix.cols) return;
  if (count == 0) {
    keep_rows(matrix, 0, 0);
    matrix.cols = 0;
    return;
  }
  Rows& rows = *stored(matrix.data);
  const auto row = static_cast<uint64_t>(row_bytes(matrix.dtype, count));
  Columns columns = {rows.tensor + row_bytes(matrix.dtype, first), rows.row_bytes, nullptr};
  columns.values.reset(new uint8_t[static_cast<uint64_t>(matrix.rows) * row]);
  const uint8_t* const whole = rows.tensor;
  rows = {columns.values.get(), 0, matrix.rows, row};
  if (spec_.random) {
    copy_columns(columns, rows);
    forget(whole);
    owned_.push_back(std::move(columns.values));
  } else {
    columns_.emplace(rows.tensor, std::move(columns));
  }
  matrix.data = rows.tensor;
  matrix.cols = count;
}

// Where its file is mapped, the token embedding is not loaded: a row is read when it is looked up.
void Weights::keep_vocabulary(int32_t first, int32_t end) {
  cqil_tensor& output = view_.output;
  if (output.data != view_.token_embedding.data) {
    keep_rows(output, first, end - first);
    if (!spec_.random && spec_.mapped) stored_.erase(stored(view_.token_embedding.data));
    return;
  }
  Rows& rows = *stored(output.data);
  const Rows whole = rows;
  auto part = [&](int64_t from, int64_t to) {
    return Rows{whole.tensor + static_cast<uint64_t>(from) * whole.row_bytes, 0, to - from, whole.row_bytes};
  };
  rows = part(first, end);
  if (!spec_.random && !spec_.mapped) {
    if (first > 0) stored_.push_back(part(0, first));
    if (end < whole.count) stored_.push_back(part(end, whole.count));
  }
  if (first == end) output = {nullptr, output.dtype, 0, output.cols};
  else output = {part(first, end).tensor, output.dtype, end - first, output.cols};
  stored_.erase(std::remove_if(stored_.begin(), stored_.end(), [](const Rows& one) { return one.count == 0; }),
                stored_.end());
}

void Weights::copy_columns(const Columns& columns, const Rows& rows) {
  uint8_t* to = columns.values.get() + static_cast<uint64_t>(rows.first) * rows.row_bytes;
  for (int64_t row = rows.first; row < rows.first + rows.count; row++, to += rows.row_bytes)
    std::memcpy(to, columns.source + static_cast<uint64_t>(row) * columns.source_row_bytes, rows.row_bytes);
}

void Weights::forget(const uint8_t* random) {
  for (std::unique_ptr<uint8_t[]>& storage : owned_)
    if (storage.get() == random) storage.reset();
}

}  // namespace cqil
