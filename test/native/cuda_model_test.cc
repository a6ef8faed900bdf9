// Whole models on CUDA against the CPU backend, through the same table: every format, plan, bypass, output and way to
// split a prompt; and wide = lanes = persistent to the bit. Built twice, see cuda_models.h: on the emulated device
// streams and graphs run in a random order that respects what was recorded.
#include <algorithm>

#include "cuda_models.h"
#include "shortlist.h"

#ifdef CQIL_CUDA_EMULATOR
#include <dlfcn.h>
#endif

using namespace cuda_models;

namespace {

// ‖logits − CPU‖ / ‖CPU‖. The kernels promise 1e-5 for one token and 5e-5 for several (native/cuda/kernels/launch.h);
// layers add up.
constexpr double kTolerance = 2e-4;

// Persistent is for models of one plain format.
bool offers(const Model& model, Execution execution) {
  const cqil_execution bit = execution == Execution::kPersistent ? CQIL_PERSISTENT
                             : execution == Execution::kLanes    ? CQIL_LANES
                                                                 : CQIL_WIDE;
  return (cuda().executions(model.backend_model()) & 1u << bit) != 0;
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

void expect_close(const std::vector<float>& found, const std::vector<float>& expected, double tolerance,
                  const std::string& what) {
  double difference = 0, norm = 0;
  for (size_t i = 0; i < expected.size(); i++) {
    const double d = static_cast<double>(found[i]) - expected[i];
    difference += d * d;
    norm += static_cast<double>(expected[i]) * expected[i];
  }
  CHECK(found.size() == expected.size() && norm > 0, what + " has a value for each expected one");
  check::near(std::sqrt(difference / norm), 0, tolerance, what);
}

// Token by token in every execution, to the same bits; and with a prompt in one piece and in two, where wide and lanes
// differ.
void test_logits(const Pair& models, const Plan& plan, int n, cqil_dtype kv, double tolerance,
                 const std::string& what) {
  const std::vector<int32_t> ids = some_ids(n);
  Session reference(models.cpu, plan, Execution::kWide, 64, kv);
  const std::vector<float> expected = run(reference, ids, {n});
  std::vector<float> one_by_one;
  for (Execution execution : kExecutions) {
    if (!offers(*models.gpu, execution)) {
      check::throws(
          "BACKEND_UNAVAILABLE", [&] { Session bad(models.gpu, plan, execution, 64, kv); },
          what + ": no such execution");
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
      expect_close(on_gpu.forward(next), on_cpu.forward(next), kTolerance,
                   "the token after output " + std::to_string(output));
    }
}

// A prompt's and then a token's, of lengths for which a graph is captured, replayed and captured anew: the highest of
// what the same execution gives as logits.
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
      check::expect_shortlist(
          listed.shortlist(short_request), whole.forward(request), count,
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
    ahead.ahead().run(
        ahead, requests[0], nullptr,
        [&](Ahead::Asker, const Outcome& outcome) {
          if (found.size() < 5) keep(outcome.shortlist, outcome.shortlist.ids[0]);
          else return keep(outcome.shortlist, (outcome.shortlist.ids[0] + 1) % 101);
          under_way = under_way && ahead.ahead().ask(ahead, requests.back(), nullptr);
        },
        std::chrono::hours(1));
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
      expect_close(on_gpu.forward(request), on_cpu.forward(request), kTolerance,
                   "token " + std::to_string(id) + " at " + std::to_string(position));
    }
  }
}

// Prompts long enough for cuBLASLt, where every product of a layer fits it; a few of them refused leave the rest to the
// kernels. The same without it is what the other tests see.
void test_library_products() {
  WeightsSpec spec = check::small_weights("BF16", 3, true);
  for (int32_t i = 0; i < 3; i++) spec.tensors.push_back({"bo", i, "F32", 1, spec.shape.dim, 0, 0});
  const Pair models(spec);
  const std::vector<int32_t> ids = some_ids(70);
#ifdef CQIL_CUDA_EMULATOR
  void* const library = dlopen(std::getenv("CQIL_CUBLASLT"), RTLD_NOW);
  auto counter = [&](const char* name) -> int& { return *static_cast<int*>(dlsym(library, name)); };
#endif
  for (const auto& [plan, execution] : {std::pair{Plan{}, Execution::kWide},
                                        {plan_of({{0, 2}}, 1, true), Execution::kWide},
                                        {plan_of({{0, 3}}, 1), Execution::kLanes}}) {
    Session on_cpu(models.cpu, plan, Execution::kWide, 96);
    const std::vector<float> expected = run(on_cpu, ids, {70});
    Session on_gpu(models.gpu, plan, execution, 96);
    expect_close(run(on_gpu, ids, {70}), expected, kTolerance, "a prompt by cuBLASLt");
    const ForwardRequest next = request_of({3}, 70, CQIL_OUTPUT_LOGITS);
    expect_close(on_gpu.forward(next), on_cpu.forward(next), kTolerance, "a token after it");
#ifdef CQIL_CUDA_EMULATOR
    // Seven matrices of three layers, two parts each.
    CHECK(counter("emulated_products") == 7 * 3 * 2,
          "products by cuBLASLt: " + std::to_string(counter("emulated_products")));
    counter("emulated_products") = 0;
#endif
  }
#ifdef CQIL_CUDA_EMULATOR
  counter("emulated_refusals") = 1;
  const Pair fresh(spec);  // the library is asked once per shape
  Session refused(fresh.gpu, plan_of({{0, 2}}), Execution::kWide, 96),
      on_cpu(fresh.cpu, plan_of({{0, 2}}), Execution::kWide, 96);
  expect_close(run(refused, ids, {70}), run(on_cpu, ids, {70}), kTolerance,
               "a prompt of which cuBLASLt refuses products");
  CHECK(counter("emulated_products") > 0, "and takes others");
#endif
}

void test_variants() {
  WeightsSpec window = check::small_weights("F32", 2);
  window.layers.assign(2, {4, 0});
  test_logits(Pair(window), plan_of({{0, 2}}), 7, CQIL_F32, kTolerance, "sliding window");
  WeightsSpec interleaved = check::small_weights("BF16", 2);
  interleaved.shape.rope_interleaved = 1;
  interleaved.shape.rope_attention_factor = 1.2;
  test_logits(Pair(interleaved), plan_of({{0, 2}}), 4, CQIL_F32, kTolerance,
              "interleaved RoPE with an attention factor");
  WeightsSpec scaled = check::small_weights("F32", 2);
  scaled.shape.formula.embedding_scale = 3;
  scaled.shape.formula.attention_scale = 0.4f;
  scaled.folding = {0.5f, 2, 1};
  test_logits(Pair(scaled), plan_of({{0, 2}}), 7, CQIL_F32, kTolerance, "scales and offsets");
  const Pair f16(check::small_weights("F16", 2));
  test_logits(f16, plan_of({{0, 2}}), 4, CQIL_F16, 2e-3, "keys and values in F16");
  test_logits(f16, plan_of({{0, 2}}), 4, CQIL_Q8_0, 2e-2, "keys and values in Q8_0");
}

// What no kernel computes is refused with a sentence, and never computed otherwise.
void test_refusals() {
  auto refuse = [](const char* says, auto change) {
    WeightsSpec spec = check::small_weights("F32", 2);
    change(spec);
    std::string found = "nothing";
    try {
      model_on(cuda(), std::move(spec));
    } catch (const Error& error) {
      found = std::string(error.code()) + ": " + error.what();
    }
    CHECK(found.find("UNSUPPORTED_MODEL") == 0 && found.find(says) != std::string::npos, says + (": " + found));
  };
  refuse("activation", [](WeightsSpec& s) { s.shape.formula.activation = CQIL_GELU_TANH; });
  refuse("capped", [](WeightsSpec& s) { s.shape.formula.attention_cap = 50; });
  refuse("capped", [](WeightsSpec& s) { s.shape.formula.logit_cap = 30; });
  refuse("in part", [](WeightsSpec& s) { s.shape.rope_dim = 16, s.rope_frequencies.resize(8); });
  refuse("several", [](WeightsSpec& s) { s.shape.n_ropes = 2, s.rope_frequencies.resize(18); });
  refuse("without rotary", [](WeightsSpec& s) { s.layers = {{0, 0}, {0, CQIL_NO_ROPE}}; });
  refuse("windows", [](WeightsSpec& s) { s.layers = {{4, 0}, {0, 0}}; });
  refuse("norms of heads", [](WeightsSpec& s) { s.shape.own_norm_eps = 1e-6f; });
  refuse("after its blocks", [](WeightsSpec& s) {
    for (int32_t layer = 0; layer < 2; layer++)
      for (const char* role : {"attention_post_norm", "mlp_post_norm"})
        s.tensors.push_back({role, layer, "F32", 1, s.shape.dim, 0, 0});
  });
}

// A model that changes a few tensors of another shares the rest of them.
void test_shared_weights() {
  const auto model = model_on(cuda(), check::small_weights("BF16", 2));
  cqil_backend_model* variant = nullptr;
  cqil_error error = {};
  const cqil_model_options options = {1, 0, CQIL_ACTIVATIONS_F32, model->backend_model(), 0, nullptr};
  std::vector<cqil_layer> layers(model->weights().view().layers, model->weights().view().layers + 2);
  std::swap(layers[0].w_down, layers[1].w_down);
  cqil_weights weights = model->weights().view();
  weights.layers = layers.data();
  CHECK(cuda().model_create(&weights, &options, &variant, &error) == CQIL_OK,
        std::string("a variant is made: ") + error.text);
  if (variant) cuda().model_destroy(variant);
}

void test_models() {
  for (const char* dtype : {"F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_K", "Q5_K", "Q6_K"}) {
    const Pair models(check::small_weights(dtype, 2));
    test_logits(models, plan_of({{0, 2}}, 1), 3, CQIL_F32, kTolerance, dtype);
    CHECK(offers(*models.gpu, Execution::kPersistent) == !std::strchr(dtype, 'K'),
          std::string(dtype) + ": persistent or not");
  }
  const Pair models(check::small_weights("F32", 5));
  test_plans(models);
  test_outputs(models);
  test_shortlists(models);
  test_ahead(models);
  test_replay(models);
  test_variants();
  test_refusals();
  test_shared_weights();
}

// One model and plan, for tools that make every access a hundred times slower: CQIL_CUDA_TEST=short.
void test_short() {
  test_logits(Pair(check::small_weights("BF16", 2)), plan_of({{0, 2}}, 1), 3, CQIL_F32, kTolerance, "short");
}

}  // namespace

int main() {
  if (skipped("cuda_model")) return 77;
  if (asked_for("short")) test_short();
  else if (asked_for("library")) test_library_products();
  else test_models();
  expect_freed("everything is freed");
  return check::report("cuda_model");
}
