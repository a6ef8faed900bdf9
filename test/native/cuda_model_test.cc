// Whole models on CUDA against the CPU backend, through the same table: every format, plan, bypass, output and way to split a
// prompt; and wide = lanes = persistent to the bit. Built twice: with nvcc for a GPU, and without any toolkit over the emulated
// runtime and kernels (CQIL_CUDA_EMULATOR), where streams and graphs run in a random order that respects what was recorded.
#include <algorithm>
#include <cstdlib>

#include "backend/registry.h"
#include "check.h"
#include "core/session.h"
#include "not_finite.h"
#include "shortlist.h"
#include "small_model.h"

#ifdef CQIL_CUDA_EMULATOR
#include <dlfcn.h>

#include "cuda_emulated_runtime.h"
extern "C" const cqil_backend* cqil_backend_entry();
#endif

using namespace cqil;

namespace {

#ifdef CQIL_CUDA_EMULATOR
constexpr bool kEmulated = true;
const cqil_backend& cuda() { return *cqil_backend_entry(); }
#else
constexpr bool kEmulated = false;
const cqil_backend& cuda() { return find_backend("cuda"); }
#endif

// ‖logits − CPU‖ / ‖CPU‖. The kernels promise 1e-5 for one token and 5e-5 for several (native/cuda/kernels/launch.h); layers add up.
constexpr double kTolerance = 2e-4;

constexpr Execution kExecutions[] = {Execution::kWide, Execution::kLanes, Execution::kPersistent};

// Persistent is for models of one plain format.
bool offers(const Model& model, Execution execution) {
  const cqil_execution bit = execution == Execution::kPersistent ? CQIL_PERSISTENT : execution == Execution::kLanes ? CQIL_LANES : CQIL_WIDE;
  return (cuda().executions(model.backend_model()) & 1u << bit) != 0;
}

std::shared_ptr<Model> model_on(const cqil_backend& backend, WeightsSpec spec) {
  return std::make_shared<Model>(std::move(spec), backend, cqil_model_options{1, 0, CQIL_ACTIVATIONS_F32, nullptr, 0});
}

// Every model once on each backend.
struct Pair {
  explicit Pair(const WeightsSpec& spec) : cpu(model_on(*cpu_backend(), spec)), gpu(model_on(cuda(), spec)) {}
  std::shared_ptr<Model> cpu, gpu;
};

Plan plan_of(std::vector<Group> groups, int32_t bypass = 0, bool official = false) {
  Plan plan;
  plan.groups = std::move(groups);
  plan.bypass = bypass;
  plan.bypass_residual = official;
  return plan;
}

std::vector<int32_t> some_ids(int n, uint64_t seed = 5) {
  check::Random random(seed);
  std::vector<int32_t> ids;
  for (int i = 0; i < n; i++) ids.push_back(random.below(101));
  return ids;
}

ForwardRequest request_of(std::vector<int32_t> ids, int32_t position, cqil_output output) {
  ForwardRequest request;
  request.ids = std::move(ids);
  request.position = position;
  request.output = output;
  return request;
}

// Logits after all ids, given in pieces of these sizes, the last size repeating.
std::vector<float> run(Session& session, const std::vector<int32_t>& ids, const std::vector<int>& pieces) {
  std::vector<float> logits;
  size_t at = 0, piece = 0;
  while (at < ids.size()) {
    const size_t n = std::min(static_cast<size_t>(pieces[std::min(piece++, pieces.size() - 1)]), ids.size() - at);
    const bool last = at + n == ids.size();
    logits = session.forward(request_of({ids.begin() + static_cast<long>(at), ids.begin() + static_cast<long>(at + n)},
                                        static_cast<int32_t>(at), last ? CQIL_OUTPUT_LOGITS : CQIL_OUTPUT_NONE));
    at += n;
  }
  return logits;
}

void expect_close(const std::vector<float>& found, const std::vector<float>& expected, double tolerance, const std::string& what) {
  double difference = 0, norm = 0;
  for (size_t i = 0; i < expected.size(); i++) {
    const double d = static_cast<double>(found[i]) - expected[i];
    difference += d * d;
    norm += static_cast<double>(expected[i]) * expected[i];
  }
  CHECK(found.size() == expected.size() && norm > 0, what + " has a value for each expected one");
  check::near(std::sqrt(difference / norm), 0, tolerance, what);
}

// Token by token in every execution, to the same bits; and with a prompt in one piece and in two, where wide and lanes differ.
void test_logits(const Pair& models, const Plan& plan, int n, cqil_dtype kv, double tolerance, const std::string& what) {
  const std::vector<int32_t> ids = some_ids(n);
  Session reference(models.cpu, plan, Execution::kWide, 64, kv);
  const std::vector<float> expected = run(reference, ids, {n});
  std::vector<float> one_by_one;
  for (Execution execution : kExecutions) {
    if (!offers(*models.gpu, execution)) {
      check::throws("BACKEND_UNAVAILABLE", [&] { Session bad(models.gpu, plan, execution, 64, kv); }, what + ": no such execution");
      continue;
    }
    const std::string name = what + ", execution " + std::to_string(static_cast<int>(execution));
    Session session(models.gpu, plan, execution, 64, kv);
    const std::vector<float> found = run(session, ids, {1});
    expect_close(found, expected, tolerance, name + ", token by token");
    if (one_by_one.empty()) one_by_one = found;
    CHECK(check::same_bits(found, one_by_one), name + " gives the bits of wide");
    if (execution == Execution::kPersistent) continue;
    expect_close(run(session, ids, {n - 1, 1}), expected, tolerance, name + ", prompt and a token");
    if (!kEmulated) expect_close(run(session, ids, {n / 2, n}), expected, tolerance, name + ", two pieces");
  }
}

void test_plans(const Pair& models) {
  test_logits(models, Plan{}, 6, CQIL_F32, kTolerance, "sequential");
  for (int32_t bypass : {0, 1, 2})
    for (bool official : {false, true}) {
      // On the emulated device, which takes a second for each, every one of the three once.
      const bool p2 = !kEmulated || (bypass == 1 && official), p4 = !kEmulated || bypass != 1;
      if (bypass == 0 && official) continue;
      const std::string name = " D=" + std::to_string(bypass) + (official ? " official" : " paper");
      if (p2) test_logits(models, plan_of({{0, 2}, {2, 2}}, bypass, official), 4, CQIL_F32, kTolerance, "P2" + name);
      if (p4) test_logits(models, plan_of({{1, 4}}, bypass, official), 4, CQIL_F32, kTolerance, "P4" + name);
    }
}

void test_outputs(const Pair& models) {
  const std::vector<int32_t> ids = some_ids(kEmulated ? 6 : CQIL_MAX_TRACE);
  const Plan plan = plan_of({{1, 3}}, 1, true);
  for (cqil_output output : {CQIL_OUTPUT_SCORES, CQIL_OUTPUT_ALL_LOGITS, CQIL_OUTPUT_TRACE})
    for (const std::vector<int32_t>& tokens : {ids, std::vector<int32_t>(ids.begin(), ids.begin() + 1)}) {
      Session on_cpu(models.cpu, plan, Execution::kWide, 64), on_gpu(models.gpu, plan, Execution::kAuto, 64);
      ForwardRequest request = request_of(tokens, 0, output);
      request.has_next = true;
      request.next = 42;
      expect_close(on_gpu.forward(request), on_cpu.forward(request), kTolerance,
                   "output " + std::to_string(output) + " of " + std::to_string(tokens.size()) + " tokens");
      // What was asked for leaves no mark on the cache.
      const ForwardRequest next = request_of({3}, static_cast<int32_t>(tokens.size()), CQIL_OUTPUT_LOGITS);
      expect_close(on_gpu.forward(next), on_cpu.forward(next), kTolerance, "the token after output " + std::to_string(output));
    }
}

// A prompt's and then a token's, of lengths for which a graph is captured, replayed and captured anew: the highest of what the same
// execution gives as logits.
void test_shortlists(const Pair& models) {
  const Plan plan = plan_of({{0, 2}}, 1);
  for (Execution execution : kExecutions) {
    Session listed(models.gpu, plan, execution, 64), whole(models.gpu, plan, execution, 64);
    int32_t position = 0;
    for (int32_t count : {40, 3, 3, 3, CQIL_MAX_SHORTLIST, 1}) {
      const std::vector<int32_t> ids = some_ids(position == 0 ? 3 : 1, static_cast<uint64_t>(position));
      const ForwardRequest request = request_of(ids, position, CQIL_OUTPUT_LOGITS);
      ForwardRequest short_request = request;
      short_request.output = CQIL_OUTPUT_SHORTLIST;
      short_request.count = count;
      check::expect_shortlist(listed.shortlist(short_request), whole.forward(request), count,
                              "execution " + std::to_string(static_cast<int>(execution)) + " at " + std::to_string(position));
      position += static_cast<int32_t>(ids.size());
    }
  }
}

// Tokens begun before they are asked for, and one that is asked for instead, give what single steps give.
void test_ahead(const Pair& models) {
  for (Execution execution : kExecutions) {
    Session ahead(models.gpu, Plan{}, execution, 16), plain(models.gpu, Plan{}, execution, 16);
    std::vector<ForwardRequest> requests = {request_of(some_ids(3), 0, CQIL_OUTPUT_SHORTLIST)};
    requests[0].count = 2;
    requests[0].ahead = true;
    std::vector<cqil_shortlist> found;
    bool under_way = true;
    auto keep = [&](const cqil_shortlist& list, int32_t id) {
      found.push_back(list);
      requests.push_back(requests.back());
      requests.back().position += static_cast<int32_t>(requests.end()[-2].ids.size());
      requests.back().ids = {id};
    };
    ahead.ahead().run(ahead, requests[0], nullptr, [&](Ahead::Asker, const Outcome& outcome) {
      if (found.size() < 5) keep(outcome.shortlist, outcome.shortlist.ids[0]);
      else return keep(outcome.shortlist, (outcome.shortlist.ids[0] + 1) % 101);
      under_way = under_way && ahead.ahead().ask(ahead, requests.back(), nullptr);
    }, std::chrono::hours(1));
    keep(ahead.shortlist(requests.back()), 0);
    bool right = under_way && found.size() == 7;
    for (size_t i = 0; i < found.size(); i++) right = right && check::same(found[i], plain.shortlist(requests[i]));
    CHECK(right, "ahead, execution " + std::to_string(static_cast<int>(execution)));
  }
}

// A graph is replayed for other tokens at other positions, also after going back.
void test_replay(const Pair& models) {
  const Plan plan = plan_of({{0, 2}});
  for (Execution execution : kExecutions) {
    Session on_cpu(models.cpu, plan, Execution::kWide, 64), on_gpu(models.gpu, plan, execution, 64);
    for (const auto& [id, position] : {std::pair{1, 0}, {2, 1}, {3, 2}, {4, 3}, {90, 1}, {91, 2}, {7, 0}, {8, 1}}) {
      const ForwardRequest request = request_of({id}, position, CQIL_OUTPUT_LOGITS);
      expect_close(on_gpu.forward(request), on_cpu.forward(request), kTolerance, "token " + std::to_string(id) + " at " + std::to_string(position));
    }
  }
}

// Prompts long enough for cuBLASLt, where every product of a layer fits it; a few of them refused leave the rest to the kernels. The same
// without it is what the other tests see.
void test_library_products() {
  WeightsSpec spec = check::small_weights("BF16", 3, true);
  for (int32_t i = 0; i < 3; i++) spec.tensors.push_back({"bo", i, "F32", 1, spec.shape.dim, 0, 0});
  const Pair models(spec);
  const std::vector<int32_t> ids = some_ids(70);
#ifdef CQIL_CUDA_EMULATOR
  void* const library = dlopen(std::getenv("CQIL_CUBLASLT"), RTLD_NOW);
  auto counter = [&](const char* name) -> int& { return *static_cast<int*>(dlsym(library, name)); };
#endif
  for (const auto& [plan, execution] : {std::pair{Plan{}, Execution::kWide}, {plan_of({{0, 2}}, 1, true), Execution::kWide}, {plan_of({{0, 3}}, 1), Execution::kLanes}}) {
    Session on_cpu(models.cpu, plan, Execution::kWide, 96);
    const std::vector<float> expected = run(on_cpu, ids, {70});
    Session on_gpu(models.gpu, plan, execution, 96);
    expect_close(run(on_gpu, ids, {70}), expected, kTolerance, "a prompt by cuBLASLt");
    const ForwardRequest next = request_of({3}, 70, CQIL_OUTPUT_LOGITS);
    expect_close(on_gpu.forward(next), on_cpu.forward(next), kTolerance, "a token after it");
#ifdef CQIL_CUDA_EMULATOR
    // Seven matrices of three layers, two parts each.
    CHECK(counter("emulated_products") == 7 * 3 * 2, "products by cuBLASLt: " + std::to_string(counter("emulated_products")));
    counter("emulated_products") = 0;
#endif
  }
#ifdef CQIL_CUDA_EMULATOR
  counter("emulated_refusals") = 1;
  const Pair fresh(spec);  // the library is asked once per shape
  Session refused(fresh.gpu, plan_of({{0, 2}}), Execution::kWide, 96), on_cpu(fresh.cpu, plan_of({{0, 2}}), Execution::kWide, 96);
  expect_close(run(refused, ids, {70}), run(on_cpu, ids, {70}), kTolerance, "a prompt of which cuBLASLt refuses products");
  CHECK(counter("emulated_products") > 0, "and takes others");
#endif
}

void test_variants() {
  WeightsSpec window = check::small_weights("F32", 2);
  window.shape.sliding_window = 4;
  test_logits(Pair(window), plan_of({{0, 2}}), 7, CQIL_F32, kTolerance, "sliding window");
  WeightsSpec interleaved = check::small_weights("BF16", 2);
  interleaved.shape.rope_interleaved = 1;
  interleaved.shape.rope_attention_factor = 1.2;
  test_logits(Pair(interleaved), plan_of({{0, 2}}), 4, CQIL_F32, kTolerance, "interleaved RoPE with an attention factor");
  const Pair f16(check::small_weights("F16", 2));
  test_logits(f16, plan_of({{0, 2}}), 4, CQIL_F16, 2e-3, "keys and values in F16");
  test_logits(f16, plan_of({{0, 2}}), 4, CQIL_Q8_0, 2e-2, "keys and values in Q8_0");
}

// A model that changes a few tensors of another shares the rest of them.
void test_shared_weights() {
  const auto model = model_on(cuda(), check::small_weights("BF16", 2));
  cqil_backend_model* variant = nullptr;
  cqil_error error = {};
  const cqil_model_options options = {1, 0, CQIL_ACTIVATIONS_F32, model->backend_model(), 0};
  std::vector<cqil_layer> layers(model->weights().view().layers, model->weights().view().layers + 2);
  std::swap(layers[0].w_down, layers[1].w_down);
  cqil_weights weights = model->weights().view();
  weights.layers = layers.data();
  CHECK(cuda().model_create(&weights, &options, &variant, &error) == CQIL_OK, std::string("a variant is made: ") + error.text);
  if (variant) cuda().model_destroy(variant);
}

void test_refusals(const Pair& models) {
  Session session(models.gpu, Plan{}, Execution::kAuto, 16);
  session.cancel();
  check::throws("ABORTED", [&] { session.forward(request_of({1, 2}, 0, CQIL_OUTPUT_LOGITS)); }, "cancelled");
  session.arm();
  CHECK(session.forward(request_of({1, 2}, 0, CQIL_OUTPUT_NONE)).empty(), "usable after an abort");
  check::throws("CONTEXT_OVERFLOW", [&] { session.forward(request_of(some_ids(17), 0, CQIL_OUTPUT_NONE)); }, "past the context");
  check::throws("INVALID_ARGUMENT", [&] { Session bad(models.gpu, Plan{}, Execution::kWide, 8, CQIL_Q4_0); }, "no such cache");
  check::throws("BACKEND_UNAVAILABLE", [&] { Session bad(models.cpu, Plan{}, Execution::kPersistent, 8); }, "persistent on the CPU");
  // 1,000 layers of keys and values at the longest context there is are petabytes.
  const auto deep = model_on(cuda(), check::small_weights("BF16", kEmulated ? 4 : 1000));
  check::throws("OUT_OF_MEMORY", [&] { Session bad(deep, Plan{}, Execution::kWide, 1 << 24); }, "a cache larger than the device");
  check::throws("INVALID_ARGUMENT", [] {
    Model bad(check::small_weights("F32", 1), cuda(), cqil_model_options{1, 99, CQIL_ACTIVATIONS_F32, nullptr, 0});
  }, "no such device");
  check::throws("INVALID_ARGUMENT", [] {
    Model bad(check::small_weights("F32", 1), cuda(), cqil_model_options{1, -1, CQIL_ACTIVATIONS_F32, nullptr, 0});
  }, "a negative device");
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
  expect_reason({cudaSuccess, 13000, 2, 7, 5}, "has compute capability 7.5, Emulated GPU has compute capability 7.5, expected 8.0 or newer");
}

void test_no_memory() {
  const size_t sound = emulator::machine().memory_bytes;
  emulator::machine().memory_bytes = 1 << 20;
  try {
    model_on(cuda(), check::small_weights("F32", 6));
    CHECK(false, "a model larger than the device is refused");
  } catch (const Error& error) {
    CHECK(std::string(error.code()) == "OUT_OF_MEMORY" && std::strstr(error.what(), "The weights take 2 MB"), error.what());
  }
  emulator::machine().memory_bytes = sound;
}

// Whatever launch or copy it happens in: a coded error that names it, the same from then on, and nothing is left behind.
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
          CHECK(std::string(error.code()) == "BACKEND_UNAVAILABLE" && std::strstr(error.what(), "cudaErrorIllegalAddress (700)"),
                      when + ": " + error.code() + ": " + error.what());
        }
        emulator::repair();  // even a device that seems well again: the model does not come back
      }
      check::throws("BACKEND_UNAVAILABLE", [&] { Session more(model, Plan{}, Execution::kWide, 8); }, "no session on a lost device");
    }
    CHECK(emulator::live_objects() == 0, "a lost device leaves nothing behind: " + std::to_string(emulator::live_objects()));
  }
}

#endif

// What is not finite is told of, as on the CPU.
void test_not_finite() {
  constexpr const char* kFile = "cuda_not_finite_test.bin";
  auto model = [&](const char* dtype, const char* role, float value) {
    return model_on(cuda(), check::in_file(check::biased_weights(dtype), kFile, check::poke_one(role, role[0] == 'o' ? -1 : 1, value)));
  };
  size_t turn = 0;
  for (const char* dtype : {"F32", "Q8_0", "Q4_K"})
    for (const char* role : {"wq", "wk", "w_down", "output"}) {
      const float value = turn % 2 ? check::kNan : check::kInfinity;
      check::expect_told(model(dtype, role, value), check::kCaches[turn++ % 3], std::string(dtype) + " " + role + " " + std::to_string(value));
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

void test_models() {
  for (const char* dtype : {"F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_K", "Q5_K", "Q6_K"}) {
    const Pair models(check::small_weights(dtype, 2));
    test_logits(models, plan_of({{0, 2}}, 1), 3, CQIL_F32, kTolerance, dtype);
    CHECK(offers(*models.gpu, Execution::kPersistent) == !std::strchr(dtype, 'K'), std::string(dtype) + ": persistent or not");
  }
  const Pair models(check::small_weights("F32", 5));
  test_plans(models);
  test_outputs(models);
  test_shortlists(models);
  test_ahead(models);
  test_replay(models);
  test_refusals(models);
  test_variants();
  test_shared_weights();
}

// One model and plan, for tools that make every access a hundred times slower: CQIL_CUDA_TEST=short.
void test_short() { test_logits(Pair(check::small_weights("BF16", 2)), plan_of({{0, 2}}, 1), 3, CQIL_F32, kTolerance, "short"); }

}  // namespace

int main() {
  const char* const which = std::getenv("CQIL_CUDA_TEST");
  const auto is = [which](const char* name) { return which && std::strcmp(which, name) == 0; };
#ifdef CQIL_CUDA_EMULATOR
  test_reasons();
  test_no_memory();
#else
  const std::string reason = describe_cuda().reason;
  if (!reason.empty()) {
    std::printf("skipped: cuda_model: no CUDA device: %s\n", reason.c_str());
    return 77;
  }
#endif
  if (is("short")) test_short();
  else if (is("library")) test_library_products();
  else {
    // Both, unless one is asked for: on the emulated device they take long enough to run beside each other.
    if (!is("not_finite")) test_models();
    if (!is("models")) test_not_finite();
  }
#ifdef CQIL_CUDA_EMULATOR
  CHECK(emulator::live_objects() == 0, "everything is freed: " + std::to_string(emulator::live_objects()));
  if (!is("library") && !is("not_finite")) test_lost_device();
#endif
  return check::report("cuda_model");
}
