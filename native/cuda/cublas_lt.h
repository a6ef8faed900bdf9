// cuBLASLt, NVIDIA's tuned matrix products, where the machine has it: it comes with the toolkit and with PyTorch, not
// with the driver, and so is loaded by name.
#pragma once
#include <map>
#include <memory>

#include "cublas_lt_abi.h"

namespace cqil::cuda {

// y [n_tokens, rows] = x [n_tokens, cols] . w^T [+ bias] [+ y]: bf16 operands, float32 sums, all row-major, strides in
// elements. Pointers at 16 bytes, strides of w and x in whole eights.
struct Product {
  const void* w;
  int64_t w_stride;
  const void* x;
  int64_t x_stride;
  float* y;
  int64_t y_stride;
  int32_t rows, cols, n_tokens;
  const float* bias;  // [rows] or null
  bool accumulate;
};

class CublasLt {
 public:
  // For the current device; null where there is no such library, or CQIL_CUBLASLT is empty. That names another file
  // than the toolkit's.
  static std::unique_ptr<CublasLt> open();
  ~CublasLt();
  CublasLt(const CublasLt&) = delete;

  // Enqueues. False, with nothing done, when the library has no way to compute it. Throws INTERNAL when it fails.
  // Workspaces of calls that may overlap are apart. One thread at a time.
  bool multiply(const Product& product, void* workspace, cudaStream_t stream) const;

  static constexpr size_t kWorkspaceBytes = 4 << 20;

 private:
  explicit CublasLt(const cublas_lt::Functions& functions) : functions_(functions) {}

  const cublas_lt::Functions functions_;
  cublas_lt::Handle handle_ = nullptr;
  struct Shape {
    int32_t rows, cols, n_tokens;
    int64_t w_stride, x_stride, y_stride;
    bool bias, accumulate;
    bool operator<(const Shape& other) const;
  };
  struct Choice {
    bool possible;
    cublas_lt::Algorithm algorithm;
  };
  mutable std::map<Shape, Choice> choices_;  // the library's own, asked for once per shape
};

}  // namespace cqil::cuda
