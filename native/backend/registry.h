// The backends this build knows and whether they can be used here.
#pragma once
#include <string>

#include "backend.h"

namespace cqil {

// Throws BACKEND_UNAVAILABLE with the reason.
const cqil_backend& find_backend(const std::string& name);

// Why CUDA cannot be used; empty when it can.
std::string cuda_unavailable_reason();

}  // namespace cqil
