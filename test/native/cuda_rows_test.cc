// Rows of several texts in one forward on CUDA: against the CPU, and against each text alone. A row of several tokens
// has the bits that it has alone; one token is computed by the kernels of several where it has company, to their
// tolerance. Built twice, see cuda_models.h.
#include <cmath>
#include <memory>

#include "cuda_models.h"
#include "model_file.h"
#include "not_finite.h"
#include "same_calls.h"

using namespace cuda_models;

namespace {

// ‖found − expected‖ / ‖expected‖, see cuda_model_test.cc. Now and then a cache rounds two values that differ a little
// to different numbers.
constexpr double kTolerance = 2e-4;
double tolerance_of(cqil_dtype kv) { return kv == CQIL_F32 ? kTolerance : kv == CQIL_F16 ? 2e-3 : 2e-2; }

double difference(const std::vector<float>& found, const std::vector<float>& expected) {
  double squares = 0, norm = 0;
  if (found.size() != expected.size()) return NAN;
  for (size_t i = 0; i < expected.size(); i++) {
    const double d = static_cast<double>(found[i]) - expected[i];
    squares += d * d;
    norm += static_cast<double>(expected[i]) * expected[i];
  }
  return norm > 0 ? std::sqrt(squares / norm) : 0;
}

// Everything that a call gave, as numbers. Lists may differ in the order of what is nearly equal, so they count by
// their logits.
std::vector<float> values_of(const Call& call) {
  std::vector<float> values = call.result;
  for (const cqil_shortlist& list : call.shortlists) {
    values.push_back(static_cast<float>(list.log_sum_exp));
    values.insert(values.end(), list.logits, list.logits + list.count);
  }
  return values;
}

// The ids 1 … 100: test_failing keeps 0 for itself.
std::vector<int32_t> ids_of(int n, uint64_t seed) {
  std::vector<int32_t> ids = some_ids(n, seed);
  for (int32_t& id : ids) id = 1 + id % 100;
  return ids;
}

// What a text asks for after a prompt of its own.
struct Wish {
  int prompt, n;
  cqil_output output;
  cqil_dtype kv;
};

ForwardRequest request_for(const Wish& wish, uint64_t seed) {
  ForwardRequest request = request_of(ids_of(wish.n, seed), wish.prompt, wish.output);
  request.count = 5;
  if (wish.output == CQIL_OUTPUT_SHORTLIST) request.listed = wish.n;
  if (wish.output == CQIL_OUTPUT_SCORES) request.has_next = true, request.next = 42;
  return request;
}

// Sessions of the texts on one backend, with their prompts computed one by one.
struct Texts {
  Texts(const std::shared_ptr<Model>& model, const Plan& plan, Execution execution, const std::vector<Wish>& wishes,
        uint64_t seed) {
    for (size_t i = 0; i < wishes.size(); i++) {
      sessions.push_back(std::make_unique<Session>(model, plan, execution, 64, wishes[i].kv));
      if (wishes[i].prompt > 0)
        sessions[i]->forward(request_of(ids_of(wishes[i].prompt, seed + 100 + i), 0, CQIL_OUTPUT_NONE));
    }
  }
  std::vector<Call> ask(const std::vector<ForwardRequest>& requests, bool together) {
    std::vector<Call> calls;
    for (size_t i = 0; i < requests.size(); i++)
      calls.push_back({*sessions[i], requests[i], sessions[i]->cancel_flag()});
    std::vector<Call*> pointers;
    for (Call& call : calls) pointers.push_back(&call);
    if (together) Session::run_together(pointers);
    else
      for (Call* call : pointers) Session::run_together({call});
    return calls;
  }
  std::vector<std::unique_ptr<Session>> sessions;
};

void test_together(const Pair& models, const Plan& plan, Execution execution, const std::vector<Wish>& wishes,
                   uint64_t seed, const std::string& what) {
  std::vector<ForwardRequest> requests, next;
  for (size_t i = 0; i < wishes.size(); i++) {
    requests.push_back(request_for(wishes[i], seed + i));
    next.push_back(request_of({7}, wishes[i].prompt + wishes[i].n, CQIL_OUTPUT_LOGITS));
  }
  Texts together(models.gpu, plan, execution, wishes, seed), alone(models.gpu, plan, execution, wishes, seed),
      on_cpu(models.cpu, plan, Execution::kWide, wishes, seed);
  const auto found = together.ask(requests, true), apart = alone.ask(requests, false),
             expected = on_cpu.ask(requests, false);
  for (size_t i = 0; i < wishes.size(); i++) {
    const std::string name = what + ", row " + std::to_string(i);
    CHECK(!found[i].failure && !expected[i].failure, name + " is computed");
    check::near(difference(values_of(found[i]), values_of(expected[i])), 0, tolerance_of(wishes[i].kv), name);
    if (wishes[i].n > 1) CHECK(check::same(found[i], apart[i]), name + " has the bits that it has alone");
    else
      check::near(difference(values_of(found[i]), values_of(apart[i])), 0, tolerance_of(wishes[i].kv), name + " alone");
  }
  // A further token of each text shows what was written to the caches.
  const auto later = together.ask(next, false), expected_later = on_cpu.ask(next, false);
  for (size_t i = 0; i < wishes.size(); i++)
    check::near(difference(later[i].result, expected_later[i].result), 0, tolerance_of(wishes[i].kv),
                what + ", after row " + std::to_string(i));
}

// One row and many; one token and several; positions from 0 on; every output; caches of every format; rows of logits
// for more than one product of the head, which begin and end inside rows.
const std::vector<Wish> kMixed = {{0, 1, CQIL_OUTPUT_LOGITS, CQIL_F32},       {9, 1, CQIL_OUTPUT_SHORTLIST, CQIL_F16},
                                  {3, 20, CQIL_OUTPUT_ALL_LOGITS, CQIL_Q8_0}, {0, 7, CQIL_OUTPUT_NONE, CQIL_F32},
                                  {17, 14, CQIL_OUTPUT_SCORES, CQIL_F32},     {1, 2, CQIL_OUTPUT_TRACE, CQIL_F16},
                                  {5, 6, CQIL_OUTPUT_SHORTLIST, CQIL_F32},    {30, 1, CQIL_OUTPUT_TRACE, CQIL_Q8_0},
                                  {12, 1, CQIL_OUTPUT_SCORES, CQIL_F32},      {2, 3, CQIL_OUTPUT_LOGITS, CQIL_F16}};
const std::vector<Wish> kSome = {{9, 1, CQIL_OUTPUT_LOGITS, CQIL_F32},
                                 {3, 4, CQIL_OUTPUT_SHORTLIST, CQIL_F16},
                                 {1, 2, CQIL_OUTPUT_TRACE, CQIL_F32},
                                 {0, 3, CQIL_OUTPUT_SCORES, CQIL_F32}};
const std::vector<Wish> kTokens = {
    {4, 1, CQIL_OUTPUT_SHORTLIST, CQIL_F32}, {40, 1, CQIL_OUTPUT_LOGITS, CQIL_F32}, {0, 1, CQIL_OUTPUT_NONE, CQIL_F32}};
const std::vector<Wish> kOne = {{6, 5, CQIL_OUTPUT_SHORTLIST, CQIL_F16}};

void test_plans() {
  const Pair models(check::small_weights("F32", 5));
  uint64_t seed = 1000;
  test_together(models, Plan{}, Execution::kWide, kMixed, seed, "sequential");
  test_together(models, plan_of({{0, 2}, {2, 3}}, 1, true), Execution::kLanes, kMixed, seed, "P2, P3 in lanes");
  test_together(models, Plan{}, Execution::kPersistent, kTokens, seed, "persistent");
  test_together(models, Plan{}, Execution::kWide, kOne, seed, "one row");
  for (int32_t bypass : {0, 1, 2})
    for (bool official : {false, true}) {
      if (bypass == 0 && official) continue;
      seed += 1000;
      const std::string name = " D=" + std::to_string(bypass) + (official ? " official" : " paper");
      test_together(models, plan_of({{0, 2}, {2, 3}}, bypass, official), Execution::kWide, kSome, seed,
                    "P2, P3" + name);
      test_together(models, plan_of({{1, 4}}, bypass, official), Execution::kLanes, kSome, seed, "P4 in lanes" + name);
    }
  for (const char* dtype : {"BF16", "Q8_0"}) {
    test_together(Pair(check::small_weights(dtype, 2)), plan_of({{0, 2}}, 1), Execution::kWide, kMixed, seed, dtype);
    test_together(Pair(check::small_weights(dtype, 2)), plan_of({{0, 2}}, 1), Execution::kWide, kTokens, seed, dtype);
  }
  WeightsSpec window = check::small_weights("F16", 2);
  window.layers.assign(2, {4, 0});
  test_together(Pair(window), plan_of({{0, 2}}), Execution::kWide, kMixed, seed, "sliding window");
}

const char* code_of(const Call& call) {
  if (!call.failure) return "";
  try {
    std::rethrow_exception(call.failure);
  } catch (const Error& error) {
    return error.code();
  } catch (...) {
    return "another";
  }
}

// A text whose numbers are not finite fails alone, and leaves nothing in what texts share.
void test_failing() {
  constexpr const char* kFile = "cuda_rows_test.bin";
  const auto model = model_on(
      cuda(), check::in_file(check::biased_weights("F32"), kFile, check::poke_one("token_embedding", -1, check::kNan)));
  const std::vector<Wish> wishes = {{3, 4, CQIL_OUTPUT_SHORTLIST, CQIL_F32}, {0, 5, CQIL_OUTPUT_LOGITS, CQIL_F32},
                                    {8, 2, CQIL_OUTPUT_SCORES, CQIL_F16},    {0, 1, CQIL_OUTPUT_LOGITS, CQIL_F32},
                                    {2, 6, CQIL_OUTPUT_LOGITS, CQIL_Q8_0},   {0, 3, CQIL_OUTPUT_LOGITS, CQIL_F32}};
  for (Execution execution : {Execution::kWide, Execution::kLanes}) {
    std::vector<ForwardRequest> requests;
    for (size_t i = 0; i < wishes.size(); i++) requests.push_back(request_for(wishes[i], 77 + i));
    for (size_t failing : {1, 3}) requests[failing].ids[0] = 0;
    const Plan plan = plan_of({{0, 2}}, 1);
    Texts together(model, plan, execution, wishes, 7), alone(model, plan, execution, wishes, 7);
    const auto found = together.ask(requests, true);
    requests[1].ids[0] = requests[3].ids[0] = 1;  // what is compared comes after sound texts alone
    const auto apart = alone.ask(requests, false);
    for (size_t i = 0; i < wishes.size(); i++) {
      const std::string name = "beside texts that fail, row " + std::to_string(i);
      if (i == 1 || i == 3)
        CHECK(std::string(code_of(found[i])) == "NOT_FINITE", name + " fails: " + code_of(found[i]));
      else CHECK(check::same(found[i], apart[i]), name + " does not");
    }
    const auto again = together.ask(requests, true);
    CHECK(check::same(again[1], apart[1]), "what failed is computed with another token");
  }
  std::remove(kFile);
}

#ifdef CQIL_CUDA_EMULATOR

// Rows share every product: eight tokens cost as many launches and copies as tokens of one text, and lists after all of
// them no more products of the head than a list after one.
void test_work() {
  const auto model = model_on(cuda(), check::small_weights("F32", 3));
  const auto work_of = [&](const std::vector<Wish>& wishes, int32_t listed) {
    std::vector<ForwardRequest> requests;
    for (size_t i = 0; i < wishes.size(); i++) requests.push_back(request_for(wishes[i], i));
    if (listed > 0) requests[0].listed = listed;
    Texts texts(model, Plan{}, Execution::kWide, wishes, 3);
    const int before = emulator::work_done();
    texts.ask(requests, true);
    return emulator::work_done() - before;
  };
  const std::vector<Wish> one = {{1, 8, CQIL_OUTPUT_SHORTLIST, CQIL_F32}};
  const std::vector<Wish> eight(8, {1, 1, CQIL_OUTPUT_SHORTLIST, CQIL_F32});
  const int once = work_of(one, 1);
  CHECK(work_of(one, 8) == once, "lists after each of eight tokens: " + std::to_string(once) + " pieces of work");
  CHECK(work_of(eight, 0) == once, "a token of each of eight texts takes no more");
}

#endif

// More tokens than the head and a forward take at once.
void test_many() {
  const Pair models(check::small_weights("F32", 2));
  std::vector<Wish> wishes;
  for (int i = 0; i < 12; i++) wishes.push_back({i, 30, i % 2 ? CQIL_OUTPUT_SHORTLIST : CQIL_OUTPUT_SCORES, CQIL_F32});
  test_together(models, Plan{}, Execution::kWide, wishes, 5, "360 tokens");
}

}  // namespace

int main() {
  if (skipped("cuda_rows")) return 77;
  if (asked_for("short")) {
    test_together(Pair(check::small_weights("BF16", 2)), plan_of({{0, 2}}, 1), Execution::kWide, kTokens, 1, "short");
  } else {
    test_plans();
    test_failing();
    test_many();
#ifdef CQIL_CUDA_EMULATOR
    test_work();
#endif
  }
  expect_freed("everything is freed");
  return check::report("cuda_rows");
}
