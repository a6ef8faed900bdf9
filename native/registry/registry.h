// The backends this build knows and whether they can be used here.
#pragma once
#include <string>
#include <vector>

#include "../backend/backend.h"

namespace cqil {

// name: cpu or cuda. Throws BACKEND_UNAVAILABLE with the reason.
const cqil_backend& find_backend(const std::string& name);

struct CudaState {
  std::string reason;   // why CUDA cannot be used, without a full stop; empty when it can
  std::string library;  // the file that was loaded; empty when none was
  std::vector<cqil_device> devices;
};

// Loads the CUDA library on first use and asks it for its devices, which starts the driver: not for the JavaScript
// thread.
CudaState describe_cuda();

}  // namespace cqil
