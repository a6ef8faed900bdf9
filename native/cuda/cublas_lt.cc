#include "cublas_lt.h"

#include <cstdlib>
#include <string>
#include <tuple>
#include <vector>

#include "../core/shared_library.h"
#include "failure.h"

namespace cqil::cuda {
namespace {

using namespace cublas_lt;

std::vector<std::string> library_files() {
  if (const char* named = std::getenv("CQIL_CUBLASLT"))
    return *named ? std::vector<std::string>{named} : std::vector<std::string>{};
#ifdef _WIN32
  return {"cublasLt64_13.dll", "cublasLt64_12.dll"};
#else
  return {"libcublasLt.so.13", "libcublasLt.so.12"};
#endif
}

// False when one is missing.
bool find_functions(void* library, Functions& functions) {
  bool complete = true;
  auto find = [&](auto& function, const char* name) {
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(find_symbol(library, name));
    complete = complete && function;
  };
  find(functions.create, "cublasLtCreate");
  find(functions.destroy, "cublasLtDestroy");
  find(functions.desc_create, "cublasLtMatmulDescCreate");
  find(functions.desc_destroy, "cublasLtMatmulDescDestroy");
  find(functions.desc_set, "cublasLtMatmulDescSetAttribute");
  find(functions.layout_create, "cublasLtMatrixLayoutCreate");
  find(functions.layout_destroy, "cublasLtMatrixLayoutDestroy");
  find(functions.preference_create, "cublasLtMatmulPreferenceCreate");
  find(functions.preference_destroy, "cublasLtMatmulPreferenceDestroy");
  find(functions.preference_set, "cublasLtMatmulPreferenceSetAttribute");
  find(functions.heuristic, "cublasLtMatmulAlgoGetHeuristic");
  find(functions.matmul, "cublasLtMatmul");
  return complete;
}

void expect(Status status, const char* doing) {
  if (status != kSuccess)
    throw Failure(CQIL_INTERNAL,
                  std::string("cuBLASLt failed while ") + doing + ": status " + std::to_string(status) + ".");
}

// Destroys what the library made, by the library's function.
using Owned = std::unique_ptr<void, Status (*)(void*)>;

}  // namespace

std::unique_ptr<CublasLt> CublasLt::open() {
  for (const std::string& file : library_files()) {
    std::string error;
    void* const library = open_library(file, error);
    Functions functions = {};
    if (!library || !find_functions(library, functions)) continue;
    std::unique_ptr<CublasLt> opened(new CublasLt(functions));
    if (functions.create(&opened->handle_) == kSuccess) return opened;
    opened->handle_ = nullptr;
  }
  return nullptr;
}

CublasLt::~CublasLt() {
  if (handle_) functions_.destroy(handle_);
}

bool CublasLt::Shape::operator<(const Shape& other) const {
  auto fields = [](const Shape& s) {
    return std::tie(s.rows, s.cols, s.n_tokens, s.w_stride, s.x_stride, s.y_stride, s.bias, s.accumulate);
  };
  return fields(*this) < fields(other);
}

// In the library's column-major terms: y [rows, n_tokens] = (w [cols, rows])^T . x [cols, n_tokens].
bool CublasLt::multiply(const Product& p, void* workspace, cudaStream_t stream) const {
  const char* const doing = "a product was described";
  void* made = nullptr;
  expect(functions_.desc_create(&made, kComputeFloat32, kFloat32), doing);
  const Owned desc(made, functions_.desc_destroy);
  auto set = [&](DescAttribute attribute, const auto& value) {
    expect(functions_.desc_set(desc.get(), attribute, &value, sizeof value), doing);
  };
  set(kTransposeA, kTransposed);
  set(kTransposeB, kNotTransposed);
  if (p.bias) {
    set(kEpilogue, kEpilogueBias);
    set(kBiasPointer, p.bias);
  }
  auto layout = [&](int type, int32_t rows, int32_t cols, int64_t stride) {
    expect(functions_.layout_create(&made, type, static_cast<uint64_t>(rows), static_cast<uint64_t>(cols), stride),
           doing);
    return Owned(made, functions_.layout_destroy);
  };
  const Owned w = layout(kBfloat16, p.cols, p.rows, p.w_stride);
  const Owned x = layout(kBfloat16, p.cols, p.n_tokens, p.x_stride);
  const Owned y = layout(kFloat32, p.rows, p.n_tokens, p.y_stride);

  const Shape shape = {p.rows, p.cols, p.n_tokens, p.w_stride, p.x_stride, p.y_stride, p.bias != nullptr, p.accumulate};
  auto known = choices_.find(shape);
  if (known == choices_.end()) {
    expect(functions_.preference_create(&made), doing);
    const Owned preference(made, functions_.preference_destroy);
    const size_t bytes = kWorkspaceBytes;
    expect(functions_.preference_set(preference.get(), kMaxWorkspaceBytes, &bytes, sizeof bytes), doing);
    Heuristic found = {};
    int n_found = 0;
    const Status status = functions_.heuristic(handle_, desc.get(), w.get(), x.get(), y.get(), y.get(),
                                               preference.get(), 1, &found, &n_found);
    const bool possible = status == kSuccess && n_found > 0 && found.state == kSuccess;
    known = choices_.emplace(shape, Choice{possible, found.algorithm}).first;
  }
  if (!known->second.possible) return false;
  const float one = 1, beta = p.accumulate ? 1.0f : 0.0f;
  expect(functions_.matmul(handle_, desc.get(), &one, p.w, w.get(), p.x, x.get(), &beta, p.y, y.get(), p.y, y.get(),
                           &known->second.algorithm, workspace, kWorkspaceBytes, stream),
         "it computed");
  return true;
}

}  // namespace cqil::cuda
