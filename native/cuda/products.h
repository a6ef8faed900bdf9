// The phases of layers that are matrix products: of many tokens by cuBLASLt where it can, else by the kernels of
// launch.h.
//
// cuBLASLt takes BF16 weights: an x is split into two bf16 parts, x = high + low to 2^-18, as matmul.cu does it, and
// two products are summed in float32. Weights of other formats would first have to be unpacked to memory.
#pragma once
#include <initializer_list>

#include "cublas_lt.h"
#include "kernels/launch.h"
#include "memory.h"

namespace cqil::cuda {

class Weights;

class Products {
 public:
  // Whether a model has weights for the library, which takes a second and half a gigabyte to load.
  static bool take_library(const cqil_weights& host);

  // library: null, or what outlives this. Takes memory for it on the current device; where there is none, the kernels
  // do all.
  Products(const CublasLt* library, const Weights& weights, const DeviceWorkspace& activations, cudaStream_t stream);

  // Each means and enqueues what its namesake in launch.h does, to the tolerance said there. Throws Failure.
  void qkv(const Step& step, const LaneRange& lanes, cudaStream_t stream) const;
  void attention_out(const Step& step, const LaneRange& lanes, cudaStream_t stream) const;
  void gate_up(const Step& step, const LaneRange& lanes, cudaStream_t stream) const;
  void down(const Step& step, const LaneRange& lanes, cudaStream_t stream) const;
  void down_apart(const Step& step, const LaneRange& lanes, cudaStream_t stream) const;

 private:
  // Rows of floats in device memory.
  struct Rows {
    float* first;
    int64_t stride;
    int32_t count;
  };

  // A buffer of the lanes, [max_lanes, batch, stride].
  struct Buffer {
    float* first;
    int64_t stride;
  };

  // By the library. False when it cannot: what was enqueued then has no effect but on buffers that the kernels write
  // anew.
  bool library_qkv(const Step& step, const LaneRange& lanes, cudaStream_t stream) const;
  bool library_attention_out(const Step& step, const LaneRange& lanes, cudaStream_t stream) const;
  bool library_gate_up(const Step& step, const LaneRange& lanes, cudaStream_t stream) const;
  bool library_down_apart(const Step& step, const LaneRange& lanes, cudaStream_t stream) const;

  // to = from . weights^T [+ bias] of every lane.
  bool library_product(const Step& step, const LaneRange& lanes, Matrix DeviceLayer::* weights,
                       const float* DeviceLayer::* bias, const Buffer& from, const Buffer& to,
                       cudaStream_t stream) const;
  bool takes(int32_t n_tokens, std::initializer_list<Matrix> weights) const;
  // The parts of x, for the products of a lane that follow.
  void split(const Rows& x, int32_t lane, cudaStream_t stream) const;
  // y = w x [+ bias] from the parts of x.
  bool multiply(const Matrix& w, const Rows& x, int32_t lane, const Rows& y, const float* bias,
                cudaStream_t stream) const;

  // Fewer keep the library's tiles half empty.
  static constexpr int32_t kFewestTokens = 64;

  const CublasLt* library_ = nullptr;
  const Weights& weights_;
  int64_t part_stride_ = 0;  // elements of one part of one lane
  int64_t up_stride_ = 0;
  DeviceArray<uint16_t> parts_;      // [max_lanes, 2, part_stride]
  DeviceArray<float> up_;            // [max_lanes, batch, hidden_stride]
  DeviceArray<uint8_t> workspaces_;  // [max_lanes, kWorkspaceBytes]
};

}  // namespace cqil::cuda
