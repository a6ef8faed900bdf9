// A random model of a few layers for the kernel tests: on the host in float64, on the device as the kernels read it.
#pragma once
#include <algorithm>
#include <string>
#include <vector>

#ifndef CQIL_CUDA_EMULATOR
#include <cuda_runtime.h>
#endif

#include "check.h"
#include "core/dtype.h"
#include "core/half.h"
#include "core/random_weights.h"
#include "cuda/kernels/launch.h"
#include "cuda/pack.h"
#include "dequantize.h"

namespace check {

using namespace cqil;
using namespace cqil::cuda;
using Doubles = std::vector<double>;
using FloatVector = std::vector<float>;

inline void device_ok(cudaError_t code, const char* what) {
  if (code == cudaSuccess) return;
  that(false, std::string(what) + ": CUDA error " + std::to_string(static_cast<int>(code)));
}

template <class T>
T* to_device(const std::vector<T>& values) {
  void* memory = nullptr;
  device_ok(cudaMalloc(&memory, values.size() * sizeof(T) + 256), "allocate");
  device_ok(cudaMemcpy(memory, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice), "upload");
  return static_cast<T*>(memory);
}
template <class T>
void write(T* to, const std::vector<T>& values) {
  device_ok(cudaMemcpy(to, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice), "upload");
}
template <class T>
std::vector<T> read(const T* from, int64_t count) {
  std::vector<T> values(static_cast<size_t>(count));
  device_ok(cudaDeviceSynchronize(), "synchronize");
  device_ok(cudaMemcpy(values.data(), from, values.size() * sizeof(T), cudaMemcpyDeviceToHost), "download");
  return values;
}

// What a test case asks for.
struct Case {
  const char* name;
  int dim, hidden_dim, head_dim, n_heads, n_kv_heads, vocab_size;
  cqil_dtype dtype, v_down_dtype, up_dtype;  // of the matrices; of wv and w_down; of w_up
  cqil_dtype kv_dtype;
  int lanes, bypass, bypass_residual;
  bool biases, head_norms, interleaved;
  int window, position;
};

struct HostMatrix {
  Doubles weights;  // [rows, cols]
  std::vector<uint8_t> file;
  cqil_dtype dtype;
  int rows, cols;
};

struct HostLayer {
  HostMatrix wq, wk, wv, wo, w_gate, w_up, w_down;
  FloatVector attention_norm, mlp_norm, bq, bk, bv, bo, q_norm, k_norm;
};

class RandomModel {
 public:
  RandomModel(const Case& c, Random& random) : spec(c), random_(random) {
    const int q = c.n_heads * c.head_dim, kv = c.n_kv_heads * c.head_dim;
    std::vector<DeviceLayer> device_layers(static_cast<size_t>(c.lanes));
    layers.resize(static_cast<size_t>(c.lanes));
    for (size_t i = 0; i < layers.size(); i++) {
      HostLayer& l = layers[i];
      DeviceLayer& d = device_layers[i];
      d = {};
      d.wq = matrix(l.wq, c.dtype, q, c.dim);
      d.wk = matrix(l.wk, c.dtype, kv, c.dim);
      d.wv = matrix(l.wv, c.v_down_dtype, kv, c.dim);
      d.wo = matrix(l.wo, c.dtype, c.dim, q);
      d.w_gate = matrix(l.w_gate, c.dtype, c.hidden_dim, c.dim);
      d.w_up = matrix(l.w_up, c.up_dtype, c.hidden_dim, c.dim);
      d.w_down = matrix(l.w_down, c.v_down_dtype, c.dim, c.hidden_dim);
      d.attention_norm = vector(l.attention_norm, c.dim);
      d.mlp_norm = vector(l.mlp_norm, c.dim);
      if (c.biases) {
        d.bq = vector(l.bq, q);
        d.bk = vector(l.bk, kv);
        d.bv = vector(l.bv, kv);
        d.bo = vector(l.bo, c.dim);
      }
      if (c.head_norms) {
        d.q_norm = vector(l.q_norm, c.head_dim);
        d.k_norm = vector(l.k_norm, c.head_dim);
      }
    }
    device = device_model(shape());
    device.sliding_window = spec.window;
    device.format = c.v_down_dtype == c.dtype && c.up_dtype == c.dtype ? c.dtype : -1;
    device.head_norms = c.head_norms;
    device.gate_up_runs = c.up_dtype == c.dtype ? 1 : 2;
    device.layers = keep(to_device(device_layers));
    device.token_embedding = matrix(embedding, c.dtype, c.vocab_size, c.dim);
    device.output = matrix(output, c.v_down_dtype, c.vocab_size, c.dim);
    device.output_norm = vector(output_norm, c.dim);
  }
  ~RandomModel() {
    for (void* memory : allocations_) device_ok(cudaFree(memory), "free");
  }
  RandomModel(const RandomModel&) = delete;
  RandomModel& operator=(const RandomModel&) = delete;

  const Case& spec;
  std::vector<HostLayer> layers;
  HostMatrix embedding, output;
  FloatVector output_norm;
  DeviceModel device = {};

  cqil_shape shape() const {
    cqil_shape s = {};
    s.dim = spec.dim, s.hidden_dim = spec.hidden_dim, s.head_dim = spec.head_dim, s.n_heads = spec.n_heads;
    s.n_kv_heads = spec.n_kv_heads, s.n_layers = spec.lanes, s.vocab_size = spec.vocab_size;
    s.norm_eps = s.own_norm_eps = 1e-5f, s.rope_interleaved = spec.interleaved;
    s.rope_dim = spec.head_dim, s.n_ropes = 1;
    return s;
  }

  template <class T>
  T* keep(T* memory) {
    allocations_.push_back(const_cast<void*>(static_cast<const void*>(memory)));
    return memory;
  }

 private:
  Matrix matrix(HostMatrix& host, cqil_dtype dtype, int rows, int cols) {
    host.dtype = dtype, host.rows = rows, host.cols = cols;
    host.file.resize(static_cast<size_t>(rows * row_bytes(dtype, cols)));
    fill_random(host.file.data(), dtype, rows, cols, random_.next());
    host.weights = dequantize(host.file.data(), dtype, static_cast<int64_t>(rows) * cols);
    const PackedLayout layout = packed_layout(dtype, rows, cols);
    std::vector<uint8_t> packed(static_cast<size_t>(layout.bytes), 0xff);
    pack_rows(dtype, cols, host.file.data(), rows, packed.data(), packed.data() + layout.scales_offset);
    const uint8_t* memory = keep(to_device(packed));
    Matrix m = {};
    m.data = memory;
    m.scales = layout.scale_row_bytes ? reinterpret_cast<const uint16_t*>(memory + layout.scales_offset) : nullptr;
    m.row_bytes = layout.row_bytes, m.rows = rows, m.cols = cols, m.dtype = dtype;
    return m;
  }
  const float* vector(FloatVector& host, int n) {
    host = random_.vector(static_cast<size_t>(n), 0.5f);
    for (float& value : host) value += 1.0f;
    return keep(to_device(host));
  }

  Random& random_;
  std::vector<void*> allocations_;
};

// The formulas, in float64.
inline Doubles multiply(const HostMatrix& w, const Doubles& x) {
  Doubles y(static_cast<size_t>(w.rows), 0.0);
  for (int r = 0; r < w.rows; r++)
    for (int c = 0; c < w.cols; c++)
      y[static_cast<size_t>(r)] +=
          w.weights[static_cast<size_t>(r) * static_cast<size_t>(w.cols) + static_cast<size_t>(c)] *
          x[static_cast<size_t>(c)];
  return y;
}
inline Doubles rms_norm(const Doubles& x, const FloatVector& weight, double eps) {
  double squares = 0;
  for (double v : x) squares += v * v;
  Doubles y(x.size());
  for (size_t i = 0; i < x.size(); i++)
    y[i] = x[i] / std::sqrt(squares / static_cast<double>(x.size()) + eps) * static_cast<double>(weight[i]);
  return y;
}
inline Doubles widen(const float* from, int n) { return Doubles(from, from + n); }

// One row of the cache, as kv_cache.cuh lays it out.
inline Doubles decode_row(const uint8_t* row, cqil_dtype dtype, int head_stride) {
  Doubles out(static_cast<size_t>(head_stride));
  for (int i = 0; i < head_stride; i++) {
    double& value = out[static_cast<size_t>(i)];
    if (dtype == CQIL_Q8_0) {
      value = f16(row + head_stride + i / 32 * 2) * static_cast<int8_t>(row[i]);
    } else if (dtype == CQIL_F32) {
      float plain;
      std::memcpy(&plain, row + 4 * i, 4);
      value = plain;
    } else {
      value = dtype == CQIL_F16 ? f16(row + 2 * i) : float_from_bf16(u16(row + 2 * i));
    }
  }
  return out;
}
inline void encode_row(const FloatVector& values, cqil_dtype dtype, uint8_t* row) {
  const size_t n = values.size();
  for (size_t i = 0; i < n; i++) {
    const uint16_t half = dtype == CQIL_F16 ? f16_from_float(values[i]) : bf16_from_float(values[i]);
    if (dtype == CQIL_F32) std::memcpy(row + 4 * i, &values[i], 4);
    else if (dtype == CQIL_Q8_0) row[i] = static_cast<uint8_t>(static_cast<int8_t>(values[i] * 127.0f));
    else std::memcpy(row + 2 * i, &half, 2);
  }
  const uint16_t scale = f16_from_float(1.0f / 127.0f);
  for (size_t b = 0; dtype == CQIL_Q8_0 && b < n / 32; b++) std::memcpy(row + n + 2 * b, &scale, 2);
}

}  // namespace check
