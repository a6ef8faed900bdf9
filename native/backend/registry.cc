#include "registry.h"

#include "../core/error.h"
#include "../cpu/cpu_backend.h"

namespace cqil {

std::string cuda_unavailable_reason() { return "this version of cqil has no CUDA backend"; }

const cqil_backend& find_backend(const std::string& name) {
  if (name == "cpu") return *cpu_backend();
  if (name == "cuda") throw Error("BACKEND_UNAVAILABLE", "The cuda backend cannot be used: " + cuda_unavailable_reason() + ".");
  throw Error("BACKEND_UNAVAILABLE", "There is no backend " + name + "; expected cpu or cuda.");
}

}  // namespace cqil
