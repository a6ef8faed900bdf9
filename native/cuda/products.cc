#include "products.h"

#include <algorithm>

#include "device.h"
#include "kernels/prefill.h"
#include "weights.h"

namespace cqil::cuda {
namespace {

constexpr const char* kComputing = "it computed";

// Takes a cqil_tensor or a Matrix. The library's fast kernels want 16 bytes at a time.
template <class Weights>
bool fits(const Weights& w) {
  return w.dtype == CQIL_BF16 && w.rows % 8 == 0 && w.cols % 8 == 0;
}

// A lane's rows of a buffer [max_lanes, batch, stride].
float* lane_rows(const DeviceWorkspace& s, float* buffer, int64_t stride, int32_t lane) {
  return buffer + lane * s.size.batch * stride;
}

// Lane first_lane, and so on.
template <class Body>
bool each_lane(const LaneRange& lanes, Body body) {
  for (int32_t lane = lanes.first_lane; lane < lanes.first_lane + lanes.n_lanes; lane++)
    if (!body(lane)) return false;
  return true;
}

}  // namespace

bool Products::take_library(const cqil_weights& host) { return fits(host.layers[0].wq) || fits(host.layers[0].w_down); }

Products::Products(const CublasLt* library, const Weights& weights, const DeviceWorkspace& activations,
                   cudaStream_t stream)
    : weights_(weights) {
  if (!library) return;
  const auto lanes = static_cast<size_t>(activations.size.max_lanes);
  part_stride_ =
      activations.size.batch *
      static_cast<int64_t>(std::max({activations.dim_stride, activations.attention_stride, activations.hidden_stride}));
  up_stride_ = activations.size.batch * static_cast<int64_t>(activations.hidden_stride);
  const size_t n_parts = lanes * 2 * static_cast<size_t>(part_stride_), n_up = lanes * static_cast<size_t>(up_stride_);
  const size_t workspace = lanes * CublasLt::kWorkspaceBytes;
  if (n_parts * sizeof(uint16_t) + n_up * sizeof(float) + workspace > free_bytes()) return;
  parts_ = device_array<uint16_t>(n_parts);
  up_ = device_array<float>(n_up);
  workspaces_ = device_array<uint8_t>(workspace);
  // Padding is multiplied too, and is to stay zero.
  check(cudaMemsetAsync(up_.get(), 0, n_up * sizeof(float), stream), "a workspace was made");
  library_ = library;
}

bool Products::takes(int32_t n_tokens, std::initializer_list<Matrix> weights) const {
  return library_ && n_tokens >= kFewestTokens && std::all_of(weights.begin(), weights.end(), fits<Matrix>);
}

void Products::split(const Rows& x, int32_t lane, cudaStream_t stream) const {
  auto* const parts = reinterpret_cast<uint32_t*>(parts_.get() + 2 * lane * part_stride_);
  check(launch_split(x.first, parts, static_cast<int>(part_stride_ / 2), static_cast<int>(x.count * x.stride), stream),
        kComputing);
}

bool Products::multiply(const Matrix& w, const Rows& x, int32_t lane, const Rows& y, const float* bias,
                        cudaStream_t stream) const {
  const uint16_t* const high = parts_.get() + 2 * lane * part_stride_;
  uint8_t* const workspace = workspaces_.get() + static_cast<size_t>(lane) * CublasLt::kWorkspaceBytes;
  // The small part first: it is not lost in a large sum.
  Product product = {
      w.data, w.row_bytes / 2, high + part_stride_, x.stride, y.first, y.stride, w.rows, w.cols, x.count, bias, false};
  if (!library_->multiply(product, workspace, stream)) return false;
  product.x = high;
  product.bias = nullptr;
  product.accumulate = true;
  return library_->multiply(product, workspace, stream);
}

bool Products::library_qkv(const Step& step, const LaneRange& lanes, cudaStream_t stream) const {
  const DeviceWorkspace& s = step.workspace;
  const int32_t n = step.n_tokens, kv_width = step.model.n_kv_heads * s.head_stride;
  if (s.head_stride != step.model.head_dim) return false;  // heads are then apart
  const bool all = each_lane(lanes, [&](int32_t lane) {
    const DeviceLayer& layer = weights_.layer(lanes.first_layer + lane);
    return takes(n, {layer.wq, layer.wk, layer.wv});
  });
  if (!all) return false;
  check(launch_norms(step, lanes, false, stream), kComputing);
  const bool done = each_lane(lanes, [&](int32_t lane) {
    const DeviceLayer& layer = weights_.layer(lanes.first_layer + lane);
    const Rows x = {lane_rows(s, s.norm, s.dim_stride, lane), s.dim_stride, n};
    float* const key_value = lane_rows(s, s.key_value, 2 * kv_width, lane);
    split(x, lane, stream);
    return multiply(layer.wq, x, lane, {lane_rows(s, s.query, s.query_stride, lane), s.query_stride, n}, nullptr,
                    stream) &&
           multiply(layer.wk, x, lane, {key_value, 2 * kv_width, n}, nullptr, stream) &&
           multiply(layer.wv, x, lane, {key_value + kv_width, 2 * kv_width, n}, nullptr, stream);
  });
  if (done) check(launch_finish_heads(step, lanes, stream), kComputing);
  return done;
}

bool Products::library_product(const Step& step, const LaneRange& lanes, Matrix DeviceLayer::* weights,
                               const float* DeviceLayer::* bias, const Buffer& from, const Buffer& to,
                               cudaStream_t stream) const {
  return each_lane(lanes, [&](int32_t lane) {
    const DeviceLayer& layer = weights_.layer(lanes.first_layer + lane);
    if (!takes(step.n_tokens, {layer.*weights})) return false;
    const Rows x = {lane_rows(step.workspace, from.first, from.stride, lane), from.stride, step.n_tokens};
    const Rows y = {lane_rows(step.workspace, to.first, to.stride, lane), to.stride, step.n_tokens};
    split(x, lane, stream);
    return multiply(layer.*weights, x, lane, y, bias ? layer.*bias : nullptr, stream);
  });
}

bool Products::library_attention_out(const Step& step, const LaneRange& lanes, cudaStream_t stream) const {
  const DeviceWorkspace& s = step.workspace;
  return library_product(step, lanes, &DeviceLayer::wo, &DeviceLayer::bo, {s.attention, s.attention_stride},
                         {s.attention_out, s.dim_stride}, stream);
}

bool Products::library_gate_up(const Step& step, const LaneRange& lanes, cudaStream_t stream) const {
  const DeviceWorkspace& s = step.workspace;
  const int32_t n = step.n_tokens;
  const bool all = each_lane(lanes, [&](int32_t lane) {
    const DeviceLayer& layer = weights_.layer(lanes.first_layer + lane);
    return takes(n, {layer.w_gate, layer.w_up});
  });
  if (!all) return false;
  check(launch_norms(step, lanes, true, stream), kComputing);
  return each_lane(lanes, [&](int32_t lane) {
    const DeviceLayer& layer = weights_.layer(lanes.first_layer + lane);
    const Rows x = {lane_rows(s, s.norm, s.dim_stride, lane), s.dim_stride, n};
    const Rows gate = {lane_rows(s, s.gate_up, s.hidden_stride, lane), s.hidden_stride, n};
    const Rows up = {up_.get() + lane * up_stride_, s.hidden_stride, n};
    split(x, lane, stream);
    if (!multiply(layer.w_gate, x, lane, gate, nullptr, stream) || !multiply(layer.w_up, x, lane, up, nullptr, stream))
      return false;
    check(launch_silu_mul(gate.first, up.first, n * gate.stride, stream), kComputing);
    return true;
  });
}

bool Products::library_down_apart(const Step& step, const LaneRange& lanes, cudaStream_t stream) const {
  const DeviceWorkspace& s = step.workspace;
  return library_product(step, lanes, &DeviceLayer::w_down, nullptr, {s.gate_up, s.hidden_stride},
                         {s.mlp_out, s.dim_stride}, stream);
}

void Products::qkv(const Step& step, const LaneRange& lanes, cudaStream_t stream) const {
  if (!library_qkv(step, lanes, stream)) check(launch_qkv(step, lanes, stream), kComputing);
}

void Products::attention_out(const Step& step, const LaneRange& lanes, cudaStream_t stream) const {
  if (!library_attention_out(step, lanes, stream)) check(launch_attention_out(step, lanes, stream), kComputing);
}

void Products::gate_up(const Step& step, const LaneRange& lanes, cudaStream_t stream) const {
  if (!library_gate_up(step, lanes, stream)) check(launch_gate_up(step, lanes, stream), kComputing);
}

void Products::down(const Step& step, const LaneRange& lanes, cudaStream_t stream) const {
  if (!library_down_apart(step, lanes, stream)) return check(launch_down(step, lanes, stream), kComputing);
  check(launch_join(step, lanes.n_lanes, stream), kComputing);
}

void Products::down_apart(const Step& step, const LaneRange& lanes, cudaStream_t stream) const {
  if (!library_down_apart(step, lanes, stream)) check(launch_down_apart(step, lanes, stream), kComputing);
}

}  // namespace cqil::cuda
