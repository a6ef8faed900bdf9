// Whether CUDA can be used is answered once per process, so each case is a process: registry_test TEXT expects the
// reason to contain TEXT, for the library that CQIL_CUDA_LIBRARY names.
#include "registry/registry.h"

#include "check.h"

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  const cqil::CudaState state = cqil::describe_cuda();
  std::printf("cuda: %s\n", state.reason.empty() ? "can be used" : state.reason.c_str());
  if (state.reason.empty() && !state.devices.empty()) {
    std::printf("skipped: registry: this machine has a GPU that can be used\n");
    return 77;
  }
  CHECK(state.reason.find(argv[1]) != std::string::npos, "the reason was: " + state.reason);
  CHECK(state.reason.back() != '.' && state.devices.empty(),
        "a reason is no sentence of its own, and no device comes with it");
  check::throws("BACKEND_UNAVAILABLE", [] { cqil::find_backend("cuda"); }, "asking for cuda");
  check::throws("BACKEND_UNAVAILABLE", [] { cqil::find_backend("tpu"); }, "asking for what does not exist");
  CHECK(std::string(cqil::find_backend("cpu").name) == "cpu", "the CPU is always there");
  return check::report("registry");
}
