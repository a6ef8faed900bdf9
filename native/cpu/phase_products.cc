// A matrix times what it is given: the norm of its input, rounded where activations are.
#include <algorithm>
#include <cstring>

#include "../core/dtype.h"
#include "phases.h"

namespace cqil {

void Pass::product(const MatrixRows& w, const Input& input, const Products& y, const Scratch& scratch) const {
  const cqil_dtype dtype = w.matrix.dtype;
  const int64_t cols = w.matrix.cols, bytes = row_bytes(dtype, cols);
  const uint8_t* rows = static_cast<const uint8_t*>(w.matrix.data) + w.first * bytes;
  const RoundedKernels* rounded = rounded_ && rounded_->matvec[dtype] ? rounded_ : nullptr;
  if (input.x.n == 1 && rounded) return rounded->matvec[dtype](rows, w.n, cols, input.rounded.first, y.first);
  if (input.x.n == 1) return kernels_.matvec[dtype](rows, bytes, w.n, cols, input.x.first, y.first);
  float* panel = scratch.panel.get();
  const int64_t panel_rows = rounded ? rounded->panel_rows : kPanelRows;
  for (int64_t r = 0; r < w.n; r += panel_rows) {
    const int64_t n = std::min(panel_rows, w.n - r);
    if (rounded) {
      uint8_t* unpacked = reinterpret_cast<uint8_t*>(panel);
      rounded->unpack[dtype](rows + r * bytes, n, cols, unpacked);
      rounded->matmul[dtype](unpacked, n, input.rounded, cols, {y.first + r, y.stride});
    } else {
      kernels_.unpack[dtype](rows + r * bytes, bytes, n, cols, panel);
      kernels_.matmul(panel, n, input.x, padded(cols), {y.first + r, y.stride});
    }
  }
}

// One token: two units each, so that a slow member leaves something behind for others, in runs of rows as long as that
// allows: with four each, on Zen 5, a token takes 2 to 10 % more. Several: whole panels.
int64_t Pass::rows_per_unit(int64_t rows, int crew_size) const {
  if (tokens_ > 1) return rounded_ ? rounded_->panel_rows : kPanelRows;
  if (crew_size == 1) return rows;  // nobody to share with: the longer a run of rows, the better memory serves it
  const int64_t half_share = rows / (2 * crew_size);
  return std::max(kPanelRows, (half_share + kPanelRows - 1) / kPanelRows * kPanelRows);
}

// b_j: the attention outputs of up to D earlier lanes.
void Pass::add_bypass(float* y, int lane, int64_t token, int64_t first, int64_t n) const {
  for (int k = 1; k <= std::min<int>(workspace.program.bypass, lane); k++)
    kernels_.add(y, lane_row(workspace.attention_out, workspace.dim_stride, lane - k, token) + first, n);
}

void Pass::norm_one(int layer, int lane, int64_t token, bool mlp, float* out) const {
  const float* x = workspace.x.get() + token * workspace.dim_stride;
  const cqil_layer& l = weights_.layers[layer];
  if (!mlp) return kernels_.rms_norm(x, floats(l.attention_norm), dim_, shape_.norm_eps, out);
  std::memcpy(out, x, static_cast<size_t>(dim_) * sizeof(float));
  kernels_.add(out, lane_row(workspace.attention_out, workspace.dim_stride, lane, token), dim_);
  add_bypass(out, lane, token, 0, dim_);
  kernels_.rms_norm(out, floats(l.mlp_norm), dim_, shape_.norm_eps, out);
}

void Pass::norm_all(const Crew& crew, const Lanes& lanes, bool mlp) const {
  if (tokens_ == 1) return;
  for (int lane = lanes.first_lane; lane < lanes.first_lane + lanes.n_lanes; lane++)
    for (int64_t t = crew.member; t < tokens_; t += crew.size) {
      float* row = lane_row(workspace.norm, workspace.dim_stride, lane, t);
      norm_one(lanes.first_layer + lane, lane, t, mlp, row);
      round_one(row, dim_, rounded_row_of(crew, lane, t));
    }
  crew.wait();
}

// With one token every member normalises for itself, which is cheaper than waiting for one that does it for all.
Input Pass::norm_of(const Crew& crew, const Lanes& lanes, int lane, bool mlp, int& held_lane) const {
  if (tokens_ > 1) return input_of(crew, workspace.norm, workspace.dim_stride, lane);
  float* row = crew.scratch->norm.get();
  if (held_lane != lane) {
    norm_one(lanes.first_layer + lane, lane, 0, mlp, row);
    round_one(row, dim_, rounded_row_of(crew, lane, 0));
  }
  held_lane = lane;
  return {{row, workspace.dim_stride, 1}, {rounded_row_of(crew, lane, 0), workspace.rounded_stride, 1}};
}

// Weights of formats with such products have rows of whole blocks; where n is none, there are no such weights.
void Pass::round_one(const float* x, int64_t n, uint8_t* row) const {
  if (rounded_ && n % rounded_->block == 0) rounded_->round(x, n, row);
}

void Pass::round_all(const Crew& crew, const Lanes& lanes, const Floats& buffer, int64_t stride, int64_t n) const {
  if (!rounded_) return;
  const bool one = tokens_ == 1;
  for (int lane = lanes.first_lane; lane < lanes.first_lane + lanes.n_lanes; lane++)
    for (int64_t t = one ? 0 : crew.member; t < tokens_; t += one ? 1 : crew.size)
      round_one(lane_row(buffer, stride, lane, t), n, rounded_row_of(crew, lane, t));
  if (!one) crew.wait();
}

}  // namespace cqil
