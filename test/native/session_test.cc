// Sessions end to end on a small random model: however the work is split, the bits are the same.
#include "core/session.h"

#include <algorithm>

#include "check.h"
#include "shortlist.h"
#include "small_model.h"
#include "some_text.h"

using namespace cqil;
using check::run;
using check::small_model;
using check::small_weights;
using check::some_ids;

namespace {

Plan mixed_plan(int32_t bypass, bool official) {
  Plan plan;
  plan.groups = {{1, 3}, {4, 2}};
  plan.bypass = bypass;
  plan.bypass_residual = official;
  return plan;
}

void test_same_bits(const char* dtype, const Plan& plan) {
  const std::vector<int32_t> ids = some_ids(37);
  Session first(small_model(1, dtype), plan, Execution::kWide, 64);
  const std::vector<float> expected = run(first, ids, {37});
  bool finite = true;
  for (float v : expected) finite = finite && std::isfinite(v);
  CHECK(finite, std::string(dtype) + " logits are finite");
  for (int threads : {1, 2, 3, 5})
    for (Execution execution : {Execution::kWide, Execution::kLanes, Execution::kAuto})
      for (const auto& pieces : {std::vector<size_t>{37}, std::vector<size_t>{1}, std::vector<size_t>{20, 1, 3}}) {
        Session session(small_model(threads, dtype), plan, execution, 64);
        CHECK(check::same_bits(run(session, ids, pieces), expected),
              std::string(dtype) + " D=" + std::to_string(plan.bypass) + " threads " + std::to_string(threads));
      }
}

// Bits are the same where small layers are computed by one thread: all of them, or as long as little is cached.
void test_alone(const char* dtype, cqil_activations activations) {
  const std::vector<int32_t> ids = some_ids(37);
  const Plan plan = mixed_plan(1, false);
  Session first(small_model(1, dtype, activations), plan, Execution::kWide, 64);
  const std::vector<float> expected = run(first, ids, {37});
  const int64_t matrices =
      dtype[0] == 'Q' ? (3 * 256 * 256 + 3 * 512 * 256) / 32 * 34 : 4 * (2 * 72 * 72 + 2 * 36 * 72 + 3 * 123 * 72);
  for (int64_t alone_bytes : {matrices + 10000, int64_t{1} << 30})
    for (int threads : {2, 3, 5})
      for (Execution execution : {Execution::kWide, Execution::kLanes, Execution::kAuto})
        for (const auto& pieces : {std::vector<size_t>{1}, std::vector<size_t>{20, 1, 3}}) {
          Session session(small_model(threads, dtype, activations, alone_bytes), plan, execution, 64);
          CHECK(check::same_bits(run(session, ids, pieces), expected), std::string(dtype) + " alone up to " +
                                                                           std::to_string(alone_bytes) + ", threads " +
                                                                           std::to_string(threads));
        }
}

// Rows of more columns than one chunk of a panel has: a prompt, whose products go by panels, gives what its tokens give
// one by one.
void test_long_rows() {
  for (const char* dtype : {"F32", "BF16", "Q8_0", "Q4_0", "Q4_K", "Q5_K", "Q6_K"}) {
    const auto model =
        std::make_shared<Model>(small_weights(dtype, 2, false, dtype[0] == 'Q' ? 1280 : 1115), *cpu_backend(),
                                cqil_model_options{1, 0, CQIL_ACTIVATIONS_F32, nullptr, 0, nullptr});
    Session whole(model, Plan{}, Execution::kWide, 64), single(model, Plan{}, Execution::kWide, 64);
    const std::vector<int32_t> ids = some_ids(37);
    CHECK(check::same_bits(run(whole, ids, {37}), run(single, ids, {1})),
          std::string(dtype) + " in chunks and row by row");
  }
}

// Bits are the same in every format of the KV cache, and there is rounding that is seen but small.
void test_kv_formats(const char* dtype) {
  const std::vector<int32_t> ids = some_ids(37);
  const Plan plan = mixed_plan(1, false);
  std::vector<float> exact;
  for (cqil_dtype kv : {CQIL_F32, CQIL_F16, CQIL_Q8_0}) {
    const std::string name = std::string(dtype) + " with a cache of " + dtype_info(kv).name;
    Session first(small_model(1, dtype), plan, Execution::kWide, 64, kv);
    const std::vector<float> expected = run(first, ids, {37});
    for (int threads : {1, 3})
      for (Execution execution : {Execution::kWide, Execution::kLanes})
        for (const auto& pieces : {std::vector<size_t>{37}, std::vector<size_t>{1}, std::vector<size_t>{20, 1, 3}}) {
          Session session(small_model(threads, dtype), plan, execution, 64, kv);
          CHECK(check::same_bits(run(session, ids, pieces), expected), name + ", threads " + std::to_string(threads));
        }
    if (kv == CQIL_F32) {
      exact = expected;
      continue;
    }
    double worst = 0;
    for (size_t i = 0; i < exact.size(); i++) worst = std::max<double>(worst, std::fabs(expected[i] - exact[i]));
    CHECK(worst > 0 && worst < (kv == CQIL_F16 ? 0.02 : 0.2), name + " is off by " + std::to_string(worst));
  }
}

// Bits are the same with activations rounded to int8, whose rounding is seen but small; weights without int8 products
// are multiplied as ever.
void test_int8(const char* dtype) {
  const std::vector<int32_t> ids = some_ids(37);
  const Plan plan = mixed_plan(1, false);
  const std::string name = std::string(dtype) + " with int8 activations";
  Session exact(small_model(1, dtype), plan, Execution::kWide, 64);
  Session first(small_model(1, dtype, CQIL_ACTIVATIONS_INT8), plan, Execution::kWide, 64);
  const std::vector<float> unrounded = run(exact, ids, {37}), expected = run(first, ids, {37});
  for (int threads : {1, 3})
    for (Execution execution : {Execution::kWide, Execution::kLanes})
      for (const auto& pieces : {std::vector<size_t>{37}, std::vector<size_t>{1}, std::vector<size_t>{20, 1, 3}}) {
        Session session(small_model(threads, dtype, CQIL_ACTIVATIONS_INT8), plan, execution, 64);
        CHECK(check::same_bits(run(session, ids, pieces), expected), name + ", threads " + std::to_string(threads));
      }
  double worst = 0;
  for (size_t i = 0; i < expected.size(); i++) worst = std::max<double>(worst, std::fabs(expected[i] - unrounded[i]));
  const bool rounds = std::strcmp(dtype, "F32") != 0 && std::strcmp(dtype, "Q5_K") != 0;
  CHECK(rounds ? worst > 0 && worst < 0.2 : worst == 0, name + " is off by " + std::to_string(worst));
}

void test_cache_bytes() {
  const int64_t vectors = 2 * 6 * 2 * 10;  // keys and values, layers, heads, positions
  for (auto [kv, bytes] : {std::pair{CQIL_F32, 18 * 4}, {CQIL_F16, 18 * 2}, {CQIL_Q8_0, 34}}) {
    Session session(small_model(1), Plan{}, Execution::kWide, 10, kv);
    CHECK(session.cache_bytes() == static_cast<uint64_t>(vectors * bytes),
          std::string(dtype_info(kv).name) + " cache bytes");
  }
  check::throws(
      "INVALID_ARGUMENT", [] { Session bad(small_model(1), Plan{}, Execution::kWide, 8, CQIL_Q4_0); }, "no such cache");
}

void test_groups_of_one() {
  const std::vector<int32_t> ids = some_ids(20);
  Plan ones;
  ones.groups = {{0, 1}, {1, 1}, {4, 1}};
  Session a(small_model(2), ones, Execution::kWide, 32), b(small_model(2), Plan{}, Execution::kLanes, 32);
  CHECK(check::same_bits(run(a, ids, {20}), run(b, ids, {20})), "P=1 is the ordinary model");
  Session c(small_model(2), mixed_plan(0, false), Execution::kWide, 32),
      d(small_model(2), mixed_plan(0, true), Execution::kWide, 32);
  CHECK(check::same_bits(run(c, ids, {20}), run(d, ids, {20})), "with D = 0 the bypass modes agree");
  Session e(small_model(2), mixed_plan(1, false), Execution::kWide, 32),
      f(small_model(2), mixed_plan(1, true), Execution::kWide, 32);
  const auto sequential = run(b, ids, {20}), paper = run(e, ids, {20}), official = run(f, ids, {20});
  CHECK(!check::same_bits(paper, official) && !check::same_bits(paper, sequential), "with D = 1 they do not");
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
  CHECK(scores.size() == ids.size(), "one score per id when next is given");
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

// A row per id, for any number of threads: the bits that stopping at that id gives.
void test_all_logits() {
  const std::vector<int32_t> ids = some_ids(21);
  for (int threads : {1, 3}) {
    Session session(small_model(threads), mixed_plan(1, false), Execution::kWide, 64);
    ForwardRequest request;
    request.ids = ids;
    request.output = CQIL_OUTPUT_ALL_LOGITS;
    const std::vector<float> rows = session.forward(request);
    const long vocab = static_cast<long>(rows.size() / ids.size());
    for (long i = 0; i < static_cast<long>(ids.size()); i++) {
      const std::vector<float> row(rows.begin() + i * vocab, rows.begin() + (i + 1) * vocab);
      const std::vector<int32_t> until(ids.begin(), ids.begin() + i + 1);
      CHECK(check::same_bits(run(session, until, {until.size()}), row), "logits after " + std::to_string(i));
    }
    request.ids = some_ids(CQIL_MAX_LOGIT_ROWS + 1);
    check::throws("INVALID_ARGUMENT", [&] { session.forward(request); }, "too many rows of logits");
  }
}

// The highest of the same logits, for any number of threads, and their log-sum-exp.
void test_shortlist() {
  const std::vector<int32_t> ids = some_ids(9);
  for (int threads : {1, 3})
    for (int32_t count : {1, 40, CQIL_MAX_SHORTLIST}) {
      Session session(small_model(threads), mixed_plan(1, false), Execution::kAuto, 64);
      const std::vector<float> logits = run(session, ids, {ids.size()});
      ForwardRequest request;
      request.ids = ids;
      request.output = CQIL_OUTPUT_SHORTLIST;
      request.count = count;
      check::expect_shortlist(session.shortlist(request), logits, count,
                              std::to_string(count) + " of the prompt's logits");
      request.ids = {ids.back()};
      request.position = static_cast<int32_t>(ids.size()) - 1;
      check::expect_shortlist(session.shortlist(request), logits, count,
                              std::to_string(count) + " of a token's logits");
    }
  Session session(small_model(1), Plan{}, Execution::kWide, 64);
  ForwardRequest request;
  request.ids = ids;
  request.output = CQIL_OUTPUT_SHORTLIST;
  for (int32_t count : {-1, 0, CQIL_MAX_SHORTLIST + 1}) {
    request.count = count;
    check::throws("INVALID_ARGUMENT", [&] { session.shortlist(request); }, "no such length");
  }
}

// [n_layers][3][n][72]: each layer's x, a_j and m_j.
void test_trace() {
  const std::vector<int32_t> ids = some_ids(CQIL_MAX_TRACE);
  ForwardRequest request;
  request.ids = ids;
  request.output = CQIL_OUTPUT_TRACE;
  const size_t part = ids.size() * 72, layer = 3 * part;
  Session first(small_model(1), mixed_plan(1, true), Execution::kWide, 64);
  const std::vector<float> expected = first.forward(request);
  CHECK(expected.size() == 6 * layer, "a trace has three vectors per layer and token");
  CHECK(std::equal(&expected[layer], &expected[layer] + part, &expected[2 * layer]),
        "layers of a group have one input");
  for (int threads : {1, 2, 3, 5})
    for (Execution execution : {Execution::kWide, Execution::kLanes}) {
      Session session(small_model(threads), mixed_plan(1, true), execution, 64);
      CHECK(check::same_bits(session.forward(request), expected), "trace, threads " + std::to_string(threads));
    }

  Session traced(small_model(2), Plan{}, Execution::kWide, 64), plain(small_model(2), Plan{}, Execution::kWide, 64);
  const std::vector<float> trace = traced.forward(request);
  bool adds_up = true;
  for (const float* x = trace.data(); x < trace.data() + 5 * layer; x += layer)
    for (size_t i = 0; i < part; i++) adds_up = adds_up && x[i] + x[part + i] + x[2 * part + i] == x[layer + i];
  CHECK(adds_up, "x + a + m is the next layer's x");
  request.output = CQIL_OUTPUT_NONE;
  CHECK(plain.forward(request).empty(), "nothing when nothing is wanted");
  ForwardRequest next;
  next.ids = {7};
  next.position = static_cast<int32_t>(ids.size());
  next.output = CQIL_OUTPUT_LOGITS;
  CHECK(check::same_bits(traced.forward(next), plain.forward(next)), "a trace leaves the same KV cache");
  request.output = CQIL_OUTPUT_TRACE;
  request.ids.push_back(1);
  check::throws("INVALID_ARGUMENT", [&] { traced.forward(request); }, "more ids than a trace takes");
}

// Every thread's spans follow one another, every lane of every phase is there, and no phase begins before all have
// ended the one before.
void test_timeline() {
  const Plan plan = mixed_plan(1, false);
  const Program program = compile_program(plan, 6);
  ForwardRequest request;
  request.ids = {3};
  request.output = CQIL_OUTPUT_LOGITS;
  for (int threads : {1, 2, 3, 5})
    for (Execution execution : {Execution::kWide, Execution::kLanes}) {
      if (execution == Execution::kWide) {
        Session alone(small_model(threads, "F32", CQIL_ACTIVATIONS_F32, 1 << 30), plan, execution, 8);
        const std::vector<cqil_span> spans = alone.timeline(request).spans;
        const bool first_only =
            std::all_of(spans.begin(), spans.end(), [](const cqil_span& span) { return span.thread == 0; });
        CHECK(first_only && spans.size() == program.phases.size(),
              "timeline of one of " + std::to_string(threads) + " threads");
      }
      const std::string name = "timeline of " + std::to_string(threads) +
                               (execution == Execution::kWide ? " threads, wide: " : " threads, lanes: ");
      Session session(small_model(threads), plan, execution, 8), untimed(small_model(threads), plan, execution, 8);
      const Timeline timeline = session.timeline(request);
      const std::vector<cqil_span>& spans = timeline.spans;
      auto step_of = [&](const cqil_span& span) -> const cqil_step& {
        return timeline.schedule.steps[static_cast<size_t>(span.step)];
      };
      // Of one that has several; -1: all of them, or what joins them.
      auto lane_of = [&](const cqil_step& step) {
        return step.n_lanes < program.phases[static_cast<size_t>(step.phase)].n_lanes ? step.first_lane : -1;
      };
      bool in_order = true;
      for (size_t i = 0; i < spans.size(); i++) {
        const int64_t free_from = i > 0 && spans[i - 1].thread == spans[i].thread ? spans[i - 1].end_ns : 0;
        in_order = in_order && spans[i].begin_ns >= free_from && spans[i].end_ns >= spans[i].begin_ns;
      }
      CHECK(in_order, name + "a thread does one thing at a time");

      bool complete = true;
      for (int32_t p = 0; p < static_cast<int32_t>(program.phases.size()); p++) {
        const cqil_phase& phase = program.phases[static_cast<size_t>(p)];
        const bool apart = execution == Execution::kLanes && phase.n_lanes > 1;
        const int crews = apart ? std::min<int>(phase.n_lanes, threads) : 1;
        for (int thread = 0; thread < threads; thread++)
          for (int32_t lane = apart ? 0 : -1; lane < (apart ? phase.n_lanes : 0); lane++) {
            const auto count = std::count_if(spans.begin(), spans.end(), [&](const cqil_span& span) {
              const cqil_step& step = step_of(span);
              return step.phase == p && span.thread == thread && lane_of(step) == lane;
            });
            complete = complete && count == (!apart || thread % crews == lane % crews ? 1 : 0);
          }
      }
      CHECK(complete, name + "every lane of every phase, by the threads that have it");

      // Lanes run ahead of one another inside a stage only.
      auto order = [&](const cqil_span& span) {
        const int32_t index = step_of(span).phase;
        const cqil_phase& phase = program.phases[static_cast<size_t>(index)];
        return execution == Execution::kWide ? index : phase.kind == CQIL_HEAD ? program.n_stages : phase.stage;
      };
      bool dependent = true;
      for (const cqil_span& before : spans)
        for (const cqil_span& after : spans)
          if (order(before) < order(after)) dependent = dependent && before.end_ns <= after.begin_ns;
      CHECK(dependent, name + "nothing begins before what it depends on has ended");

      untimed.forward(request);
      ForwardRequest next = request;
      next.position = 1;
      CHECK(check::same_bits(session.forward(next), untimed.forward(next)), name + "the same KV cache");
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
  check::throws(
      "INVALID_ARGUMENT", [&] { session.forward(request(std::vector<int32_t>(257, 1), 0)); }, "too many at once");
  check::throws(
      "CONTEXT_OVERFLOW", [&] { session.forward(request(std::vector<int32_t>(9, 1), 0)); }, "past the context");
  check::throws("INVALID_ARGUMENT", [] { Session bad(small_model(1), Plan{}, Execution::kWide, 0); }, "no context");
  session.cancel();
  check::throws("ABORTED", [&] { session.forward(request({1, 2}, 0)); }, "cancelled");
  session.arm();
  CHECK(session.forward(request({1, 2}, 0)).empty(), "usable after an abort");
}

}  // namespace

int main() {
  for (int32_t bypass : {0, 1, 2}) test_same_bits("F32", mixed_plan(bypass, false));
  test_same_bits("F32", mixed_plan(2, true));
  for (const char* dtype : {"F16", "BF16", "Q8_0", "Q4_0", "Q4_K", "Q5_K", "Q6_K"})
    test_same_bits(dtype, mixed_plan(1, false));
  for (const char* dtype : {"F32", "Q8_0"}) test_kv_formats(dtype);
  for (const char* dtype : {"F32", "Q8_0", "Q4_0", "Q4_K", "Q5_K", "Q6_K"}) test_int8(dtype);
  test_alone("F32", CQIL_ACTIVATIONS_F32);
  test_alone("Q8_0", CQIL_ACTIVATIONS_INT8);
  test_long_rows();
  test_cache_bytes();
  test_groups_of_one();
  test_scores();
  test_all_logits();
  test_shortlist();
  test_trace();
  test_timeline();
  test_bad_requests();
  return check::report("session");
}
