#include "failure.h"

namespace cqil::cuda {
namespace {

std::string named(cudaError_t code) {
  return std::string(cudaGetErrorName(code)) + " (" + std::to_string(static_cast<int>(code)) +
         "): " + cudaGetErrorString(code);
}

// After these, by the runtime's documentation, every further call of the process fails.
bool loses_device(cudaError_t code) {
  switch (code) {
    case cudaErrorECCUncorrectable:
    case cudaErrorNvlinkUncorrectable:
    case cudaErrorContained:
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchTimeout:
    case cudaErrorContextIsDestroyed:
    case cudaErrorAssert:
    case cudaErrorHardwareStackError:
    case cudaErrorIllegalInstruction:
    case cudaErrorMisalignedAddress:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorLaunchFailure:
    case cudaErrorTensorMemoryLeak:
    case cudaErrorMpsClientTerminated: return true;
    default: return false;
  }
}

std::string version(int number) { return std::to_string(number / 1000) + "." + std::to_string(number % 1000 / 10); }

}  // namespace

void check(cudaError_t code, const char* doing) {
  if (code == cudaSuccess) return;
  cudaGetLastError();  // the next call is asked about itself
  const std::string sentence = std::string("The GPU failed while ") + doing + ": " + named(code);
  if (loses_device(code))
    throw Failure(CQIL_BACKEND_UNAVAILABLE, sentence + "; it is lost to this process, expected a new one.", true);
  throw Failure(code == cudaErrorMemoryAllocation ? CQIL_OUT_OF_MEMORY : CQIL_INTERNAL, sentence + ".");
}

std::string unavailable_reason(cudaError_t code, int driver_version) {
  switch (code) {
    case cudaErrorInsufficientDriver:
      if (driver_version == 0) return "no NVIDIA driver is installed";
      return "the NVIDIA driver is too old: it supports CUDA " + version(driver_version) + ", expected " +
             version(CUDART_VERSION) + " or newer";
    case cudaErrorNoDevice: return "the NVIDIA driver sees no GPU";
    case cudaErrorStubLibrary:
      return "libcuda is the toolkit's, which is for linking only, not the driver's own; take it out of the library "
             "path";
    case cudaErrorSystemDriverMismatch:
      return "the NVIDIA driver and its kernel module are of different versions; reboot or reload the module";
    case cudaErrorNoKernelImageForDevice:
    case cudaErrorUnsupportedPtxVersion: return "the library has no code for the architecture of this GPU";
    default: return "asking for GPUs gave " + named(code);
  }
}

std::string megabytes(uint64_t bytes) { return std::to_string((bytes + 999999) / 1000000) + " MB"; }

}  // namespace cqil::cuda
