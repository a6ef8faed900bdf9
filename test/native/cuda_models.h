// What the tests of whole models on CUDA share: the backend, built with nvcc for a GPU or without any toolkit over the
// emulated runtime and kernels (CQIL_CUDA_EMULATOR), models on it and on the CPU, and requests.
#pragma once
#include <cstdio>
#include <cstdlib>

#include "registry/registry.h"
#include "check.h"
#include "core/session.h"
#include "small_model.h"

#ifdef CQIL_CUDA_EMULATOR
#include "cuda_emulated_runtime.h"
extern "C" const cqil_backend* cqil_backend_entry();
#endif

namespace cuda_models {

using namespace cqil;

#ifdef CQIL_CUDA_EMULATOR
constexpr bool kEmulated = true;
inline const cqil_backend& cuda() { return *cqil_backend_entry(); }
#else
constexpr bool kEmulated = false;
inline const cqil_backend& cuda() { return find_backend("cuda"); }
#endif

constexpr Execution kExecutions[] = {Execution::kWide, Execution::kLanes, Execution::kPersistent};

inline std::shared_ptr<Model> model_on(const cqil_backend& backend, WeightsSpec spec) {
  return std::make_shared<Model>(std::move(spec), backend,
                                 cqil_model_options{1, 0, CQIL_ACTIVATIONS_F32, nullptr, 0, nullptr});
}

// Every model once on each backend.
struct Pair {
  explicit Pair(const WeightsSpec& spec) : cpu(model_on(*cpu_backend(), spec)), gpu(model_on(cuda(), spec)) {}
  std::shared_ptr<Model> cpu, gpu;
};

inline Plan plan_of(std::vector<Group> groups, int32_t bypass = 0, bool official = false) {
  Plan plan;
  plan.groups = std::move(groups);
  plan.bypass = bypass;
  plan.bypass_residual = official;
  return plan;
}

inline std::vector<int32_t> some_ids(int n, uint64_t seed = 5) {
  check::Random random(seed);
  std::vector<int32_t> ids;
  for (int i = 0; i < n; i++) ids.push_back(random.below(101));
  return ids;
}

inline ForwardRequest request_of(std::vector<int32_t> ids, int32_t position, cqil_output output) {
  ForwardRequest request;
  request.ids = std::move(ids);
  request.position = position;
  request.output = output;
  return request;
}

// Which part of a test CQIL_CUDA_TEST asks for.
inline bool asked_for(const char* part) {
  const char* const which = std::getenv("CQIL_CUDA_TEST");
  return which && std::strcmp(which, part) == 0;
}

// Whether there is no device: then this has said why. The emulated one is always there.
inline bool skipped([[maybe_unused]] const char* test) {
#ifndef CQIL_CUDA_EMULATOR
  const std::string reason = describe_cuda().reason;
  if (!reason.empty()) {
    std::printf("skipped: %s: no CUDA device: %s\n", test, reason.c_str());
    return true;
  }
#endif
  return false;
}

// Nothing that the emulated device was asked for is left.
inline void expect_freed([[maybe_unused]] const std::string& what) {
#ifdef CQIL_CUDA_EMULATOR
  CHECK(emulator::live_objects() == 0, what + ": " + std::to_string(emulator::live_objects()));
#endif
}

}  // namespace cuda_models
