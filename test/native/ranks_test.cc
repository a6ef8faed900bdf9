// Ranks, here threads of one process, against the same model in one process: whole lanes have its bits, slices the same
// bits on all ranks and a stated distance from it.
#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "check.h"
#include "core/session.h"
#include "exchange/exchanges.h"
#include "small_model.h"
#include "some_text.h"

using namespace cqil;

namespace {

constexpr int32_t kContext = 64;
constexpr std::chrono::seconds kPatience{60};

struct Setup {
  const char* dtype = "F32";
  cqil_activations activations = CQIL_ACTIVATIONS_F32;
  Split split = Split::kLanes;
  std::vector<int32_t> ratios = {1, 1};
  Plan plan;
  Execution execution = Execution::kWide;
  int32_t threads = 2;
  cqil_dtype kv_dtype = CQIL_F32;
  bool post_norms = false;
};

WeightsSpec weights_of(const Setup& setup) {
  WeightsSpec spec = check::small_weights(setup.dtype);
  const cqil_shape& s = spec.shape;
  auto add = [&](const char* role, int32_t layer, int64_t cols) {
    spec.tensors.push_back({role, layer, "F32", 1, cols, 0, 0});
  };
  for (int32_t i = 0; i < s.n_layers; i++) {
    add("bk", i, s.n_kv_heads * s.head_dim);
    add("bv", i, s.n_kv_heads * s.head_dim);
    add("bo", i, s.dim);
    if (!setup.post_norms) continue;
    add("attention_post_norm", i, s.dim);
    add("mlp_post_norm", i, s.dim);
  }
  return spec;
}

std::shared_ptr<Model> model_of(const Setup& setup, WeightsSpec spec, Joined joined) {
  return std::make_shared<Model>(std::move(spec), *cpu_backend(),
                                 cqil_model_options{setup.threads, 0, setup.activations, nullptr, 0, nullptr},
                                 std::move(joined));
}

// The model on ranks. This thread is the leader; each follower has a thread of its own.
class Ranks {
 public:
  explicit Ranks(const Setup& setup) {
    const auto size = static_cast<int32_t>(setup.ratios.size());
    std::vector<std::shared_ptr<Exchange>> ends;
    cqil_exchange_state leader = {};
    for (int32_t rank = 0; rank < size; rank++) {
      cqil_exchange_options options = {};
      options.rank = rank;
      options.size = size;
      options.address = rank > 0 ? leader.address : nullptr;
      options.slot_bytes = 1 << 12;  // so that messages go in pieces
      ends.push_back(std::make_shared<Exchange>(*memory_exchange(), options));
      if (rank == 0) leader = ends[0]->state();
    }
    failures.resize(static_cast<size_t>(size));
    auto join = [setup](const std::shared_ptr<Exchange>& end) {
      end->meet(kPatience);
      WeightsSpec spec = weights_of(setup);
      spec.rank = RankSpec{end->state().rank, setup.split, setup.ratios, setup.plan};
      return model_of(setup, std::move(spec), {end, kPatience});
    };
    for (size_t rank = 1; rank < ends.size(); rank++)
      followers_.emplace_back([this, join, end = ends[rank], rank] {
        try {
          join(end)->follow();
        } catch (const Error& error) {
          failures[rank] = std::string(error.code()) + ": " + error.what();
        }
      });
    model = join(ends[0]);
  }
  ~Ranks() {
    model.reset();
    for (std::thread& follower : followers_) follower.join();
  }

  std::shared_ptr<Model> model;
  std::vector<std::string> failures;

 private:
  std::vector<std::thread> followers_;
};

// What a model says of a text: logits after prompts in pieces and after tokens, scores, a trace, a shortlist.
std::vector<std::vector<float>> outputs_of(const std::shared_ptr<Model>& model, const Setup& setup) {
  const std::vector<int32_t> ids = check::some_ids(40);
  Session session(model, setup.plan, setup.execution, kContext, setup.kv_dtype);
  std::vector<std::vector<float>> all;
  auto ask = [&](size_t from, size_t n, cqil_output output) {
    ForwardRequest request;
    request.ids.assign(ids.begin() + static_cast<long>(from), ids.begin() + static_cast<long>(from + n));
    request.position = static_cast<int32_t>(from);
    request.output = output;
    request.count = 7;
    if (output != CQIL_OUTPUT_SHORTLIST) return all.push_back(session.forward(request));
    const cqil_shortlist list = session.shortlist(request);
    std::vector<float> values(list.logits, list.logits + list.count);
    values.insert(values.end(), list.ids, list.ids + list.count);
    values.push_back(static_cast<float>(list.log_sum_exp));
    all.push_back(values);
  };
  ask(0, 17, CQIL_OUTPUT_LOGITS);
  ask(17, 1, CQIL_OUTPUT_LOGITS);
  ask(18, 1, CQIL_OUTPUT_SHORTLIST);
  ask(19, 9, CQIL_OUTPUT_SCORES);
  ask(28, 3, CQIL_OUTPUT_ALL_LOGITS);
  ask(31, 4, CQIL_OUTPUT_TRACE);
  ask(35, 2, CQIL_OUTPUT_NONE);
  ask(37, 1, CQIL_OUTPUT_LOGITS);
  return all;
}

std::string describe(const Setup& setup) {
  std::string text = std::string(setup.dtype) + (setup.post_norms ? ", post-norms" : "");
  for (const Group& group : setup.plan.groups) text += ", P" + std::to_string(group.size);
  text += ", D" + std::to_string(setup.plan.bypass) + (setup.plan.bypass_residual ? " official" : "");
  text += setup.split == Split::kLanes ? ", lanes" : setup.split == Split::kHybrid ? ", hybrid" : ", tensor";
  for (int32_t ratio : setup.ratios) text += " " + std::to_string(ratio);
  return text + (setup.execution == Execution::kLanes ? ", in lanes" : "");
}

double furthest(const std::vector<float>& a, const std::vector<float>& b) {
  if (a.size() != b.size()) return 1e9;
  double far = 0, size = 0;
  for (size_t i = 0; i < a.size(); i++) {
    far = std::max(far, std::fabs(static_cast<double>(a[i]) - b[i]));
    size = std::max(size, std::fabs(static_cast<double>(b[i])));
  }
  return far / std::max(size, 1.0);
}

// Sums in another order differ in their last bits. Where they are then rounded to int8, as activations or in a cache, a
// few of many thousand values are rounded the other way.
double tolerance(const Setup& setup) {
  const bool rounded = setup.activations != CQIL_ACTIVATIONS_F32 || setup.kv_dtype != CQIL_F32;
  return rounded ? 2e-2 : 1e-5;
}

void compare(const Setup& setup) {
  const auto expected = outputs_of(model_of(setup, weights_of(setup), {}), setup);
  Ranks ranks(setup);
  const auto found = outputs_of(ranks.model, setup);
  CHECK(found.size() == expected.size(), describe(setup));
  for (size_t i = 0; i < found.size(); i++)
    if (setup.split == Split::kLanes)
      CHECK(check::same_bits(found[i], expected[i]), describe(setup) + ": output " + std::to_string(i));
    else CHECK(furthest(found[i], expected[i]) < tolerance(setup), describe(setup) + ": output " + std::to_string(i));
}

Plan groups(std::vector<Group> of, int32_t bypass = 0, bool official = false) {
  Plan plan;
  plan.groups = std::move(of);
  plan.bypass = bypass;
  plan.bypass_residual = official;
  return plan;
}

void test_outputs() {
  const std::vector<Plan> plans = {
      groups({{2, 2}}),          groups({{0, 3}, {4, 2}}), groups({{1, 4}}),         groups({{0, 3}}, 1),
      groups({{1, 4}}, 2, true), groups({{0, 6}}),         groups({{0, 2}, {2, 2}}), groups({})};
  const std::vector<std::vector<int32_t>> ratios = {{1, 1}, {1, 1, 1}, {1, 1, 1, 1}, {3, 1}, {1}};
  for (const Plan& plan : plans)
    for (const auto& ratio : ratios)
      for (Split split : {Split::kLanes, Split::kHybrid, Split::kTensor}) {
        Setup setup;
        setup.plan = plan;
        setup.ratios = ratio;
        setup.split = split;
        compare(setup);
      }
}

void test_formats() {
  for (const char* dtype : {"F16", "BF16", "Q8_0", "Q4_0", "Q4_K", "Q6_K"})
    for (Split split : {Split::kLanes, Split::kHybrid, Split::kTensor})
      for (cqil_activations activations : {CQIL_ACTIVATIONS_F32, CQIL_ACTIVATIONS_INT8, CQIL_ACTIVATIONS_BF16}) {
        Setup setup;
        setup.dtype = dtype;
        setup.split = split;
        setup.activations = activations;
        setup.plan = groups({{1, 2}, {3, 3}});
        compare(setup);
        setup.kv_dtype = dtype[0] == 'Q' ? CQIL_Q8_0 : CQIL_F16;
        compare(setup);
      }
}

void test_executions() {
  for (Split split : {Split::kLanes, Split::kHybrid, Split::kTensor})
    for (Execution execution : {Execution::kLanes, Execution::kAuto})
      for (int32_t bypass : {0, 1})
        for (bool post_norms : {false, true}) {
          Setup setup;
          setup.split = split;
          setup.execution = execution;
          setup.post_norms = post_norms;
          setup.threads = 3;
          setup.plan = groups({{0, 4}, {4, 2}}, bypass);
          compare(setup);
        }
}

const char* code_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const Error& error) {
    return error.code();
  }
  return "";
}

void test_sessions() {
  Setup setup;
  setup.split = Split::kTensor;
  setup.ratios = {1, 1, 1};
  Ranks ranks(setup);
  const std::vector<int32_t> ids = check::some_ids(20);
  std::vector<float> first;
  for (int i = 0; i < 5; i++) {
    const Plan plan = i % 2 ? groups({{1, 3}}) : groups({});
    Session a(ranks.model, plan, Execution::kWide, kContext), b(ranks.model, plan, Execution::kWide, kContext);
    const auto logits = check::run(a, ids, {5, 1});
    CHECK(check::same_bits(logits, check::run(b, ids, {5, 1})), "two sessions at once agree");
    if (i == 0) first = logits;
    else if (i % 2 == 0) CHECK(check::same_bits(logits, first), "a later session computes the same");
  }
  Session session(ranks.model, groups({}), Execution::kWide, kContext);
  session.cancel();
  ForwardRequest request;
  request.ids = ids;
  request.output = CQIL_OUTPUT_LOGITS;
  CHECK(std::string(code_of([&] { session.forward(request); })) == "ABORTED", "a cancelled forward");
  session.arm();
  CHECK(check::same_bits(check::run(session, ids, {5, 1}), first), "after a cancelled forward");
}

void test_wrong() {
  Setup setup;
  setup.plan = groups({{1, 2}});
  Ranks ranks(setup);
  CHECK(std::string(code_of([&] { Session(ranks.model, groups({{2, 2}}), Execution::kWide, kContext); })) ==
            "INVALID_PLAN",
        "another plan on ranks that hold lanes");
  Session session(ranks.model, setup.plan, Execution::kWide, kContext);
  CHECK(check::run(session, check::some_ids(5), {5}).size() == 101u, "the plan it was loaded for");
}

}  // namespace

int main() {
  test_outputs();
  test_formats();
  test_executions();
  test_sessions();
  test_wrong();
  return check::report("ranks");
}
