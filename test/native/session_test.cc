// Sessions end to end on a small random model: however the work is split, the bits are the same.
#include "core/session.h"

#include <algorithm>

#include "check.h"
#include "small_model.h"

using namespace cqil;
using check::small_model;

namespace {

Plan mixed_plan(int32_t bypass, bool official) {
  Plan plan;
  plan.groups = {{1, 3}, {4, 2}};
  plan.bypass = bypass;
  plan.bypass_residual = official;
  return plan;
}

std::vector<int32_t> some_ids(int n) {
  check::Random random(5);
  std::vector<int32_t> ids;
  for (int i = 0; i < n; i++) ids.push_back(random.below(101));
  return ids;
}

// Logits after all ids, given in pieces of these sizes, the last size repeating.
std::vector<float> run(Session& session, const std::vector<int32_t>& ids, const std::vector<size_t>& pieces) {
  std::vector<float> logits;
  size_t at = 0, piece = 0;
  while (at < ids.size()) {
    const size_t n = std::min(pieces[std::min(piece++, pieces.size() - 1)], ids.size() - at);
    ForwardRequest request;
    request.ids.assign(ids.begin() + static_cast<long>(at), ids.begin() + static_cast<long>(at + n));
    request.position = static_cast<int32_t>(at);
    request.output = CQIL_OUTPUT_LOGITS;
    logits = session.forward(request);
    at += n;
  }
  return logits;
}

void test_same_bits(const char* dtype, const Plan& plan) {
  const std::vector<int32_t> ids = some_ids(37);
  Session first(small_model(1, dtype), plan, Execution::kWide, 64);
  const std::vector<float> expected = run(first, ids, {37});
  bool finite = true;
  for (float v : expected) finite = finite && std::isfinite(v);
  check::that(finite, std::string(dtype) + " logits are finite");
  for (int threads : {1, 2, 3, 5})
    for (Execution execution : {Execution::kWide, Execution::kLanes, Execution::kAuto})
      for (const auto& pieces : {std::vector<size_t>{37}, std::vector<size_t>{1}, std::vector<size_t>{20, 1, 3}}) {
        Session session(small_model(threads, dtype), plan, execution, 64);
        check::that(check::same_bits(run(session, ids, pieces), expected),
                    std::string(dtype) + " D=" + std::to_string(plan.bypass) + " threads " + std::to_string(threads));
      }
}

void test_groups_of_one() {
  const std::vector<int32_t> ids = some_ids(20);
  Plan ones;
  ones.groups = {{0, 1}, {1, 1}, {4, 1}};
  Session a(small_model(2), ones, Execution::kWide, 32), b(small_model(2), Plan{}, Execution::kLanes, 32);
  check::that(check::same_bits(run(a, ids, {20}), run(b, ids, {20})), "P=1 is the ordinary model");
  Session c(small_model(2), mixed_plan(0, false), Execution::kWide, 32), d(small_model(2), mixed_plan(0, true), Execution::kWide, 32);
  check::that(check::same_bits(run(c, ids, {20}), run(d, ids, {20})), "with D = 0 the bypass modes agree");
  Session e(small_model(2), mixed_plan(1, false), Execution::kWide, 32), f(small_model(2), mixed_plan(1, true), Execution::kWide, 32);
  const auto sequential = run(b, ids, {20}), paper = run(e, ids, {20}), official = run(f, ids, {20});
  check::that(!check::same_bits(paper, official) && !check::same_bits(paper, sequential), "with D = 1 they do not");
}

void test_scores() {
  const std::vector<int32_t> ids = some_ids(30);
  Session session(small_model(2), mixed_plan(1, false), Execution::kWide, 64);
  ForwardRequest request;
  request.ids = ids;
  request.output = CQIL_OUTPUT_SCORES;
  request.has_next = true;
  request.next = 42;
  const std::vector<float> scores = session.forward(request);
  check::that(scores.size() == ids.size(), "one score per id when next is given");
  for (size_t i = 0; i < ids.size(); i++) {
    ForwardRequest one;
    one.ids = {ids[i]};
    one.position = static_cast<int32_t>(i);
    one.output = CQIL_OUTPUT_LOGITS;
    const std::vector<float> logits = session.forward(one);
    double highest = -1e30, sum = 0;
    for (float v : logits) highest = std::max<double>(highest, v);
    for (float v : logits) sum += std::exp(v - highest);
    const size_t target = static_cast<size_t>(i + 1 < ids.size() ? ids[i + 1] : 42);
    check::near(scores[i], logits[target] - highest - std::log(sum), 3e-6, "score " + std::to_string(i));
  }
}

void test_bad_requests() {
  Session session(small_model(1), Plan{}, Execution::kWide, 8);
  auto request = [](std::vector<int32_t> ids, int32_t position) {
    ForwardRequest r;
    r.ids = std::move(ids);
    r.position = position;
    return r;
  };
  check::throws("INVALID_ARGUMENT", [&] { session.forward(request({}, 0)); }, "no ids");
  check::throws("INVALID_ARGUMENT", [&] { session.forward(request({101}, 0)); }, "id past the vocabulary");
  check::throws("INVALID_ARGUMENT", [&] { session.forward(request({-1}, 0)); }, "negative id");
  check::throws("INVALID_ARGUMENT", [&] { session.forward(request({1}, 3)); }, "position not reached");
  check::throws("INVALID_ARGUMENT", [&] { session.forward(request(std::vector<int32_t>(257, 1), 0)); }, "too many at once");
  check::throws("CONTEXT_OVERFLOW", [&] { session.forward(request(std::vector<int32_t>(9, 1), 0)); }, "past the context");
  check::throws("INVALID_ARGUMENT", [] { Session bad(small_model(1), Plan{}, Execution::kWide, 0); }, "no context");
  session.cancel();
  check::throws("ABORTED", [&] { session.forward(request({1, 2}, 0)); }, "cancelled");
  session.arm();
  check::that(session.forward(request({1, 2}, 0)).empty(), "usable after an abort");
}

}  // namespace

int main() {
  for (int32_t bypass : {0, 1, 2}) test_same_bits("F32", mixed_plan(bypass, false));
  test_same_bits("F32", mixed_plan(2, true));
  for (const char* dtype : {"F16", "BF16", "Q8_0", "Q4_0", "Q4_K", "Q5_K", "Q6_K"}) test_same_bits(dtype, mixed_plan(1, false));
  test_groups_of_one();
  test_scores();
  test_bad_requests();
  return check::report("session");
}
