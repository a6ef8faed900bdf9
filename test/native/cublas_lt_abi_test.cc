// The numbers and layouts of cublas_lt_abi.h against the toolkit's own header, at compile time. Built where there is
// that header.
#include <cublasLt.h>

#include "cuda/cublas_lt_abi.h"

namespace {

using namespace cqil::cuda::cublas_lt;

static_assert(kSuccess == CUBLAS_STATUS_SUCCESS);
static_assert(kFloat32 == CUDA_R_32F && kBfloat16 == CUDA_R_16BF && kComputeFloat32 == CUBLAS_COMPUTE_32F);
static_assert(kNotTransposed == CUBLAS_OP_N && kTransposed == CUBLAS_OP_T &&
              sizeof(kTransposed) == sizeof(cublasOperation_t));
static_assert(kEpilogueBias == CUBLASLT_EPILOGUE_BIAS && sizeof(kEpilogueBias) == sizeof(cublasLtEpilogue_t));
static_assert(static_cast<int>(kTransposeA) == CUBLASLT_MATMUL_DESC_TRANSA &&
              static_cast<int>(kTransposeB) == CUBLASLT_MATMUL_DESC_TRANSB);
static_assert(static_cast<int>(kEpilogue) == CUBLASLT_MATMUL_DESC_EPILOGUE &&
              static_cast<int>(kBiasPointer) == CUBLASLT_MATMUL_DESC_BIAS_POINTER);
static_assert(kMaxWorkspaceBytes == CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES);
static_assert(sizeof(Algorithm) == sizeof(cublasLtMatmulAlgo_t) && alignof(Algorithm) == alignof(cublasLtMatmulAlgo_t));
static_assert(sizeof(Heuristic) == sizeof(cublasLtMatmulHeuristicResult_t));
static_assert(offsetof(Heuristic, algorithm) == offsetof(cublasLtMatmulHeuristicResult_t, algo));
static_assert(offsetof(Heuristic, workspace_bytes) == offsetof(cublasLtMatmulHeuristicResult_t, workspaceSize));
static_assert(offsetof(Heuristic, state) == offsetof(cublasLtMatmulHeuristicResult_t, state));

// Calls each of the library's functions as our pointers do: a parameter of another size or order would not convert.
[[maybe_unused]] cublasStatus_t call_all(Handle handle, Desc desc, Layout layout, Preference preference,
                                         Heuristic* found, const Algorithm* algorithm, void* data, int* n,
                                         cudaStream_t stream) {
  auto lt = static_cast<cublasLtHandle_t>(handle);
  auto of_desc = static_cast<cublasLtMatmulDesc_t>(desc);
  auto of_layout = static_cast<cublasLtMatrixLayout_t>(layout);
  auto of_preference = static_cast<cublasLtMatmulPreference_t>(preference);
  cublasLtMatmulDescCreate(&of_desc, static_cast<cublasComputeType_t>(kComputeFloat32),
                           static_cast<cudaDataType_t>(kFloat32));
  cublasLtMatmulDescSetAttribute(of_desc, static_cast<cublasLtMatmulDescAttributes_t>(kEpilogue), data,
                                 sizeof(int32_t));
  cublasLtMatrixLayoutCreate(&of_layout, static_cast<cudaDataType_t>(kBfloat16), uint64_t{1}, uint64_t{1}, int64_t{1});
  cublasLtMatmulPreferenceSetAttribute(
      of_preference, static_cast<cublasLtMatmulPreferenceAttributes_t>(kMaxWorkspaceBytes), data, sizeof(size_t));
  cublasLtMatmulAlgoGetHeuristic(lt, of_desc, of_layout, of_layout, of_layout, of_layout, of_preference, 1,
                                 reinterpret_cast<cublasLtMatmulHeuristicResult_t*>(found), n);
  return cublasLtMatmul(lt, of_desc, data, data, of_layout, data, of_layout, data, data, of_layout, data, of_layout,
                        reinterpret_cast<const cublasLtMatmulAlgo_t*>(algorithm), data, size_t{0}, stream);
}

}  // namespace
