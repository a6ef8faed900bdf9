// A stand-in for cuBLASLt on the emulated device, which reads what cublas_lt.cc describes as the library's
// documentation has it: column-major matrices, op(a) op(b), a bias per row of d. It refuses what the real one cannot
// take, and sums in double.
#include <cstring>

#include "core/half.h"
#include "cuda/cublas_lt_abi.h"

using namespace cqil::cuda::cublas_lt;

namespace {

constexpr Status kInvalidValue = 7, kNotSupported = 15;

struct Described {
  int32_t transpose_a = 0, transpose_b = 0, epilogue = 1;
  const float* bias = nullptr;
};
struct Matrix {
  int type;
  int64_t rows, cols, stride;
};

const Matrix& matrix(Layout layout) { return *static_cast<const Matrix*>(layout); }
bool aligned(const void* at) { return reinterpret_cast<uintptr_t>(at) % 16 == 0; }

}  // namespace

extern "C" {

// For tests: products computed, and whether every other one is to be refused.
int emulated_products = 0;
int emulated_refusals = 0;

Status cublasLtCreate(Handle* handle) {
  *handle = new int;
  return kSuccess;
}
Status cublasLtDestroy(Handle handle) {
  delete static_cast<int*>(handle);
  return kSuccess;
}

Status cublasLtMatmulDescCreate(Desc* desc, int compute, int scale_type) {
  if (compute != kComputeFloat32 || scale_type != kFloat32) return kInvalidValue;
  *desc = new Described;
  return kSuccess;
}
Status cublasLtMatmulDescDestroy(Desc desc) {
  delete static_cast<Described*>(desc);
  return kSuccess;
}
Status cublasLtMatmulDescSetAttribute(Desc desc, int attribute, const void* value, size_t bytes) {
  Described& described = *static_cast<Described*>(desc);
  auto set = [&](auto& field) {
    if (bytes != sizeof field) return kInvalidValue;
    std::memcpy(&field, value, bytes);
    return kSuccess;
  };
  switch (attribute) {
    case kTransposeA: return set(described.transpose_a);
    case kTransposeB: return set(described.transpose_b);
    case kEpilogue: return set(described.epilogue);
    case kBiasPointer: return set(described.bias);
    default: return kInvalidValue;
  }
}

Status cublasLtMatrixLayoutCreate(Layout* layout, int type, uint64_t rows, uint64_t cols, int64_t stride) {
  if ((type != kFloat32 && type != kBfloat16) || stride < static_cast<int64_t>(rows)) return kInvalidValue;
  *layout = new Matrix{type, static_cast<int64_t>(rows), static_cast<int64_t>(cols), stride};
  return kSuccess;
}
Status cublasLtMatrixLayoutDestroy(Layout layout) {
  delete static_cast<Matrix*>(layout);
  return kSuccess;
}

Status cublasLtMatmulPreferenceCreate(Preference* preference) {
  *preference = new size_t(0);
  return kSuccess;
}
Status cublasLtMatmulPreferenceDestroy(Preference preference) {
  delete static_cast<size_t*>(preference);
  return kSuccess;
}
Status cublasLtMatmulPreferenceSetAttribute(Preference preference, int attribute, const void* value, size_t bytes) {
  if (attribute != kMaxWorkspaceBytes || bytes != sizeof(size_t)) return kInvalidValue;
  std::memcpy(preference, value, bytes);
  return kSuccess;
}

Status cublasLtMatmulAlgoGetHeuristic(Handle, Desc desc, Layout a, Layout b, Layout c, Layout d, Preference preference,
                                      int wanted, Heuristic* found, int* n_found) {
  const Described& described = *static_cast<Described*>(desc);
  *n_found = 0;
  const Matrix &w = matrix(a), &x = matrix(b), &y = matrix(d);
  const bool meets = w.rows == x.rows && w.cols == y.rows && x.cols == y.cols && matrix(c).stride == y.stride;
  if (wanted < 1 || !meets || !described.transpose_a || described.transpose_b || *static_cast<size_t*>(preference) == 0)
    return kInvalidValue;
  if (w.type != kBfloat16 || x.type != kBfloat16 || y.type != kFloat32 || w.stride % 8 || x.stride % 8 || y.stride % 4)
    return kNotSupported;
  if (emulated_refusals > 0 && emulated_refusals++ % 2) return kNotSupported;
  *found = {};
  found->algorithm.data[0] = 42;
  *n_found = 1;
  return kSuccess;
}

Status cublasLtMatmul(Handle, Desc desc, const void* alpha, const void* a, Layout a_layout, const void* b,
                      Layout b_layout, const void* beta, const void* c, Layout, void* d, Layout d_layout,
                      const Algorithm* algorithm, void* workspace, size_t workspace_bytes, cudaStream_t stream) {
  const Described described = *static_cast<Described*>(desc);
  const Matrix w = matrix(a_layout), x = matrix(b_layout), y = matrix(d_layout);
  const float scale = *static_cast<const float*>(alpha), keep = *static_cast<const float*>(beta);
  if (algorithm->data[0] != 42 || c != d || !aligned(a) || !aligned(b) || !aligned(d) || !aligned(workspace))
    return kInvalidValue;
  emulated_products++;
  emulator::enqueue(stream, [=] {
    std::memset(workspace, 0xab, workspace_bytes);  // the library's to use
    const auto *weights = static_cast<const uint16_t*>(a), *inputs = static_cast<const uint16_t*>(b);
    auto* out = static_cast<float*>(d);
    for (int64_t token = 0; token < y.cols; token++)
      for (int64_t row = 0; row < y.rows; row++) {
        double sum = 0;
        for (int64_t k = 0; k < w.rows; k++)
          sum += static_cast<double>(cqil::float_from_bf16(weights[row * w.stride + k])) *
                 cqil::float_from_bf16(inputs[token * x.stride + k]);
        float& value = out[token * y.stride + row];
        const double bias = described.epilogue == kEpilogueBias ? described.bias[row] : 0;
        value = static_cast<float>(scale * sum + (keep != 0 ? static_cast<double>(keep) * value : 0) + bias);
      }
  });
  return kSuccess;
}

}  // extern "C"
