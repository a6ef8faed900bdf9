// What is told of where whole models on CUDA cannot be right: wrong requests, a machine that has no device, too little
// memory, a device that is lost, numbers that are not finite. Built twice, see cuda_models.h.
#include "cuda_models.h"
#include "not_finite.h"

using namespace cuda_models;

namespace {

void test_refusals() {
  const Pair models(check::small_weights("F32", 5));
  Session session(models.gpu, Plan{}, Execution::kAuto, 16);
  session.cancel();
  check::throws("ABORTED", [&] { session.forward(request_of({1, 2}, 0, CQIL_OUTPUT_LOGITS)); }, "cancelled");
  session.arm();
  CHECK(session.forward(request_of({1, 2}, 0, CQIL_OUTPUT_NONE)).empty(), "usable after an abort");
  check::throws(
      "CONTEXT_OVERFLOW", [&] { session.forward(request_of(some_ids(17), 0, CQIL_OUTPUT_NONE)); }, "past the context");
  check::throws(
      "INVALID_ARGUMENT", [&] { Session bad(models.gpu, Plan{}, Execution::kWide, 8, CQIL_Q4_0); }, "no such cache");
  check::throws(
      "BACKEND_UNAVAILABLE", [&] { Session bad(models.cpu, Plan{}, Execution::kPersistent, 8); },
      "persistent on the CPU");
  // 1,000 layers of keys and values at the longest context there is are petabytes.
  const auto deep = model_on(cuda(), check::small_weights("BF16", kEmulated ? 4 : 1000));
  check::throws(
      "OUT_OF_MEMORY", [&] { Session bad(deep, Plan{}, Execution::kWide, 1 << 24); }, "a cache larger than the device");
  check::throws(
      "INVALID_ARGUMENT",
      [] {
        Model bad(check::small_weights("F32", 1), cuda(),
                  cqil_model_options{1, 99, CQIL_ACTIVATIONS_F32, nullptr, 0, nullptr});
      },
      "no such device");
  check::throws(
      "INVALID_ARGUMENT",
      [] {
        Model bad(check::small_weights("F32", 1), cuda(),
                  cqil_model_options{1, -1, CQIL_ACTIVATIONS_F32, nullptr, 0, nullptr});
      },
      "a negative device");
}

#ifdef CQIL_CUDA_EMULATOR

void expect_reason(const emulator::Machine& machine, const char* expected) {
  const emulator::Machine sound = emulator::machine();
  emulator::machine() = machine;
  cqil_error error = {};
  int32_t count = -1;
  const cqil_status status = cuda().list_devices(nullptr, 0, &count, &error);
  CHECK(status == CQIL_BACKEND_UNAVAILABLE && count == 0, std::string("unavailable where ") + expected);
  CHECK(std::strstr(error.text, expected) != nullptr, std::string(error.text) + " says: " + expected);
  emulator::machine() = sound;
}

void test_reasons() {
  expect_reason({cudaErrorInsufficientDriver, 0}, "no NVIDIA driver is installed");
  expect_reason({cudaErrorInsufficientDriver, 12040}, "too old: it supports CUDA 12.4, expected 13.0");
  expect_reason({cudaErrorNoDevice, 13000}, "sees no GPU");
  expect_reason({cudaErrorStubLibrary, 0}, "libcuda is the toolkit's, which is for linking only");
  expect_reason({cudaErrorSystemDriverMismatch, 13000}, "different versions");
  expect_reason({cudaErrorIllegalAddress, 13000}, "cudaErrorIllegalAddress (700)");
  expect_reason({cudaSuccess, 13000, 0}, "sees no GPU");
  expect_reason({cudaSuccess, 13000, 2, 7, 5},
                "has compute capability 7.5, Emulated GPU has compute capability 7.5, expected 8.0 or newer");
}

void test_no_memory() {
  const size_t sound = emulator::machine().memory_bytes;
  emulator::machine().memory_bytes = 1 << 20;
  try {
    model_on(cuda(), check::small_weights("F32", 6));
    CHECK(false, "a model larger than the device is refused");
  } catch (const Error& error) {
    CHECK(std::string(error.code()) == "OUT_OF_MEMORY" && std::strstr(error.what(), "The weights take 2 MB"),
          error.what());
  }
  emulator::machine().memory_bytes = sound;
}

// Whatever launch or copy it happens in: a coded error that names it, the same from then on, and nothing is left
// behind.
void test_lost_device() {
  for (int calls : {1, 2, 9, 14, 30}) {
    {
      const auto model = model_on(cuda(), check::small_weights("F32", 3));
      Session session(model, plan_of({{0, 2}}), calls % 2 ? Execution::kLanes : Execution::kWide, 16);
      emulator::fail_after(calls, cudaErrorIllegalAddress);
      const std::string when = "the device is lost in piece of work " + std::to_string(calls);
      for (int again = 0; again < 2; again++) {
        try {
          for (int32_t i = 0; i < 4; i++) session.forward(request_of({1}, i, CQIL_OUTPUT_LOGITS));
          CHECK(false, when + ": nothing was thrown");
        } catch (const Error& error) {
          CHECK(std::string(error.code()) == "BACKEND_UNAVAILABLE" &&
                    std::strstr(error.what(), "cudaErrorIllegalAddress (700)"),
                when + ": " + error.code() + ": " + error.what());
        }
        emulator::repair();  // even a device that seems well again: the model does not come back
      }
      check::throws(
          "BACKEND_UNAVAILABLE", [&] { Session more(model, Plan{}, Execution::kWide, 8); },
          "no session on a lost device");
    }
    expect_freed("a lost device leaves nothing behind");
  }
}

#endif

// What is not finite is told of, as on the CPU.
void test_not_finite() {
  constexpr const char* kFile = "cuda_not_finite_test.bin";
  auto model = [&](const char* dtype, const char* role, float value) {
    return model_on(cuda(), check::in_file(check::biased_weights(dtype), kFile,
                                           check::poke_one(role, role[0] == 'o' ? -1 : 1, value)));
  };
  size_t turn = 0;
  for (const char* dtype : {"F32", "Q8_0", "Q4_K"})
    for (const char* role : {"wq", "wk", "w_down", "output"}) {
      const float value = turn % 2 ? check::kNan : check::kInfinity;
      check::expect_told(model(dtype, role, value), check::kCaches[turn++ % 3],
                         std::string(dtype) + " " + role + " " + std::to_string(value));
    }
  for (const char* role : {"bk", "bv"})
    for (float value : {1e6f, -1e8f}) {
      const auto large = model("F32", role, value);
      const std::string name = role + std::string(" ") + std::to_string(value);
      for (Execution execution : kExecutions) check::expect_told(large, CQIL_F16, name, execution);
      value < 0 ? check::expect_told(large, CQIL_Q8_0, name) : check::expect_fine(large, CQIL_Q8_0, name);
      check::expect_fine(large, CQIL_F32, name);
    }
  std::remove(kFile);
}

}  // namespace

int main() {
#ifdef CQIL_CUDA_EMULATOR
  test_reasons();
  test_no_memory();
#endif
  if (skipped("cuda_failure")) return 77;
  // Too slow under tools that make every access a hundred times slower.
  if (!asked_for("short")) {
    test_refusals();
    test_not_finite();
  }
  expect_freed("everything is freed");
#ifdef CQIL_CUDA_EMULATOR
  test_lost_device();
#endif
  return check::report("cuda_failure");
}
