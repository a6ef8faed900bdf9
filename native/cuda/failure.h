// What can go wrong on a GPU, as one exception inside this backend; backend.cc turns it into a status and a sentence.
#pragma once
#include <stdexcept>
#include <string>

#include "../backend/backend.h"
#include "platform.h"

namespace cqil::cuda {

class Failure : public std::runtime_error {
 public:
  Failure(cqil_status status, const std::string& sentence, bool device_lost = false)
      : std::runtime_error(sentence), status(status), device_lost(device_lost) {}
  const cqil_status status;
  const bool device_lost;  // the process can use the device no more
};

// Throws unless code is cudaSuccess: OUT_OF_MEMORY, BACKEND_UNAVAILABLE when the device is lost, or INTERNAL. doing
// completes "The GPU failed while …".
void check(cudaError_t code, const char* doing);

// Why no device can be used, without a full stop, from what cudaGetDeviceCount and cudaDriverGetVersion (0: no driver)
// gave.
std::string unavailable_reason(cudaError_t code, int driver_version);

// Bytes in the unit people buy memory in.
std::string megabytes(uint64_t bytes);

}  // namespace cqil::cuda
