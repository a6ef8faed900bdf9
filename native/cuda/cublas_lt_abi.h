// The few names of cuBLASLt that cublas_lt.cc calls, with the library's own numbers and layouts, so that no toolkit's
// header is needed to build; the same in its versions 12 and 13. test/native/cublas_lt_abi_test.cc holds them against
// the header where there is one.
#pragma once
#include <stddef.h>
#include <stdint.h>

#include "platform.h"

namespace cqil::cuda::cublas_lt {

using Status = int;
constexpr Status kSuccess = 0;

constexpr int kFloat32 = 0, kBfloat16 = 14;             // cudaDataType
constexpr int kComputeFloat32 = 68;                     // cublasComputeType_t
constexpr int32_t kNotTransposed = 0, kTransposed = 1;  // cublasOperation_t
constexpr int32_t kEpilogueBias = 4;                    // cublasLtEpilogue_t
// cublasLtMatmulDescAttributes_t
enum DescAttribute { kTransposeA = 3, kTransposeB = 4, kEpilogue = 7, kBiasPointer = 8 };
constexpr int kMaxWorkspaceBytes = 1;  // cublasLtMatmulPreferenceAttributes_t

using Handle = void*;
using Desc = void*;
using Layout = void*;
using Preference = void*;
struct Algorithm {
  uint64_t data[8];
};
struct Heuristic {
  Algorithm algorithm;
  size_t workspace_bytes;
  Status state;
  float waves;
  int reserved[4];
};

// Matrices are column-major: d [m, n] = alpha op(a) op(b) + beta c [+ bias, a value per row].
struct Functions {
  Status (*create)(Handle* handle);
  Status (*destroy)(Handle handle);
  Status (*desc_create)(Desc* desc, int compute, int scale_type);
  Status (*desc_destroy)(Desc desc);
  Status (*desc_set)(Desc desc, int attribute, const void* value, size_t bytes);
  Status (*layout_create)(Layout* layout, int type, uint64_t rows, uint64_t cols, int64_t stride);
  Status (*layout_destroy)(Layout layout);
  Status (*preference_create)(Preference* preference);
  Status (*preference_destroy)(Preference preference);
  Status (*preference_set)(Preference preference, int attribute, const void* value, size_t bytes);
  Status (*heuristic)(Handle handle, Desc desc, Layout a, Layout b, Layout c, Layout d, Preference preference,
                      int wanted, Heuristic* found, int* n_found);
  Status (*matmul)(Handle handle, Desc desc, const void* alpha, const void* a, Layout a_layout, const void* b,
                   Layout b_layout, const void* beta, const void* c, Layout c_layout, void* d, Layout d_layout,
                   const Algorithm* algorithm, void* workspace, size_t workspace_bytes, cudaStream_t stream);
};

}  // namespace cqil::cuda::cublas_lt
