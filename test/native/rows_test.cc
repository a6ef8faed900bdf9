// Rows of several texts in one forward: each has the bits that it has alone, and the outcome that is its own.
#include <algorithm>
#include <memory>

#include "check.h"
#include "core/session.h"
#include "core/workspace.h"
#include "same_calls.h"
#include "small_model.h"
#include "some_text.h"

using namespace cqil;

namespace {

constexpr int32_t kContext = 64;

ForwardRequest request_of(const std::vector<int32_t>& ids, size_t from, size_t n, cqil_output output) {
  ForwardRequest request;
  request.ids.assign(ids.begin() + static_cast<long>(from), ids.begin() + static_cast<long>(from + n));
  request.position = static_cast<int32_t>(from);
  request.output = output;
  request.count = 5;
  return request;
}

struct Text {
  std::unique_ptr<Session> session;
  std::vector<int32_t> ids;
  std::vector<size_t> pieces;  // how many of them each forward takes; the last gives the output
  cqil_output output;
  size_t done = 0, piece = 0;
};

std::vector<Text> some_texts(const std::shared_ptr<Model>& model, const Plan& plan, Execution execution) {
  const std::vector<int32_t> ids = check::some_ids(60);
  const std::vector<size_t> pieces[] = {{1, 1, 1, 1}, {7, 1, 1, 5}, {20, 1, 2, 1}, {3, 17, 1, 1},
                                        {1, 1, 1, 4}, {1, 1, 1, 1}, {2, 1, 1, 1},  {1, 1, 1, 9}};
  const cqil_output outputs[] = {CQIL_OUTPUT_LOGITS, CQIL_OUTPUT_ALL_LOGITS, CQIL_OUTPUT_SHORTLIST,
                                 CQIL_OUTPUT_LOGITS, CQIL_OUTPUT_SCORES,     CQIL_OUTPUT_NONE,
                                 CQIL_OUTPUT_TRACE,  CQIL_OUTPUT_SHORTLIST};
  const cqil_dtype kv_dtypes[] = {CQIL_F32, CQIL_F16, CQIL_Q8_0};
  std::vector<Text> texts;
  for (size_t i = 0; i < std::size(pieces); i++) {
    Text text = {
        std::make_unique<Session>(model, plan, execution, kContext, kv_dtypes[i % 3]), {}, pieces[i], outputs[i]};
    size_t n = 0;
    for (size_t piece : pieces[i]) n += piece;
    text.ids.assign(ids.begin() + static_cast<long>(i), ids.begin() + static_cast<long>(i + n));
    texts.push_back(std::move(text));
  }
  return texts;
}

// The request of a text's next piece.
ForwardRequest next_of(Text& text) {
  const size_t n = text.pieces[text.piece++];
  const bool last = text.piece == text.pieces.size();
  ForwardRequest request = request_of(text.ids, text.done, n, last ? text.output : CQIL_OUTPUT_LOGITS);
  if (request.output == CQIL_OUTPUT_SHORTLIST) request.listed = static_cast<int32_t>(n);
  text.done += n;
  return request;
}

void test_same_bits(const char* dtype, cqil_activations activations, const Plan& plan, Execution execution,
                    int threads) {
  const auto model = check::small_model(threads, dtype, activations, 1 << 20);
  std::vector<Text> together = some_texts(model, plan, execution), alone = some_texts(model, plan, execution);
  CHECK(&together[0].session->workspace() == &alone[7].session->workspace(), "sessions of a program share a workspace");
  bool right = true;
  for (size_t piece = 0; piece < together[0].pieces.size(); piece++) {
    std::vector<ForwardRequest> requests;
    for (Text& text : together) requests.push_back(next_of(text));
    std::vector<Call> calls;
    std::vector<Call*> pointers;
    for (size_t i = 0; i < together.size(); i++)
      calls.push_back({*together[i].session, requests[i], together[i].session->cancel_flag()});
    for (Call& call : calls) pointers.push_back(&call);
    Session::run_together(pointers);
    for (size_t i = 0; i < alone.size(); i++) {
      const ForwardRequest request = next_of(alone[i]);
      Call call{*alone[i].session, request, alone[i].session->cancel_flag()};
      Session::run_together({&call});
      right = right && check::same(calls[i], call);
    }
  }
  CHECK(right, std::string(dtype) + ", " + std::to_string(threads) + " threads: rows have the bits of each alone");
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

// What is wrong with one call, or ends it, is its own.
void test_apart() {
  const auto model = check::small_model(2);
  const std::vector<int32_t> ids = check::some_ids(20);
  Plan groups;
  groups.groups = {{1, 2}};
  Session sound(model, Plan{}, Execution::kWide, kContext), wrong(model, Plan{}, Execution::kWide, kContext),
      ended(model, Plan{}, Execution::kWide, kContext), other(model, groups, Execution::kWide, kContext),
      full(model, Plan{}, Execution::kWide, 4), apart(model, Plan{}, Execution::kWide, kContext);
  const ForwardRequest request = request_of(ids, 0, 9, CQIL_OUTPUT_LOGITS);
  ForwardRequest bad = request;
  bad.ids[3] = 1000;
  ended.cancel();
  Call calls[] = {{wrong, bad, wrong.cancel_flag()},     {ended, request, ended.cancel_flag()},
                  {sound, request, sound.cancel_flag()}, {full, request, full.cancel_flag()},
                  {other, request, other.cancel_flag()}, {sound, request, sound.cancel_flag()}};
  std::vector<Call*> pointers;
  for (Call& call : calls) pointers.push_back(&call);
  Session::run_together(pointers);
  const std::vector<float> expected = apart.forward(request);
  CHECK(std::string(code_of(calls[0])) == "INVALID_ARGUMENT", "an id outside the vocabulary");
  CHECK(std::string(code_of(calls[1])) == "ABORTED", "a call that was given up");
  CHECK(!calls[2].failure && check::same_bits(calls[2].result, expected), "the call beside them is computed");
  CHECK(std::string(code_of(calls[3])) == "CONTEXT_OVERFLOW", "a text that is too long");
  CHECK(!calls[4].failure && !check::same_bits(calls[4].result, expected), "another program, in its own forward");
  CHECK(!calls[5].failure && check::same_bits(calls[5].result, expected), "the same session again");
}

// A call that does not fit a forward is not overtaken by the next one of its session.
void test_order() {
  const auto model = check::small_model(2);
  const std::vector<int32_t> ids = check::some_ids(240);
  Session first(model, Plan{}, Execution::kWide, 256), second(model, Plan{}, Execution::kWide, 256),
      apart(model, Plan{}, Execution::kWide, 256);
  const ForwardRequest large = request_of(ids, 0, 200, CQIL_OUTPUT_LOGITS),
                       larger = request_of(ids, 0, 100, CQIL_OUTPUT_LOGITS),
                       one = request_of(ids, 100, 1, CQIL_OUTPUT_LOGITS);
  Call calls[] = {
      {first, large, first.cancel_flag()}, {second, larger, second.cancel_flag()}, {second, one, second.cancel_flag()}};
  std::vector<Call*> pointers;
  for (Call& call : calls) pointers.push_back(&call);
  Session::run_together(pointers);
  apart.forward(larger);
  CHECK(!calls[2].failure && check::same_bits(calls[2].result, apart.forward(one)),
        "calls of a session keep their order");
}

// Rows that do not fit one forward go in several.
void test_many() {
  const auto model = check::small_model(2);
  const std::vector<int32_t> ids = check::some_ids(60);
  std::vector<std::unique_ptr<Session>> sessions;
  std::vector<ForwardRequest> requests;
  for (size_t i = 0; i < 20; i++) {
    sessions.push_back(std::make_unique<Session>(model, Plan{}, Execution::kAuto, kContext));
    requests.push_back(request_of(ids, 0, 10 + i, CQIL_OUTPUT_LOGITS));
  }
  std::vector<Call> calls;
  std::vector<Call*> pointers;
  for (size_t i = 0; i < sessions.size(); i++) calls.push_back({*sessions[i], requests[i], sessions[i]->cancel_flag()});
  for (Call& call : calls) pointers.push_back(&call);
  Session::run_together(pointers);
  bool right = true;
  Session alone(model, Plan{}, Execution::kWide, kContext);
  for (const Call& call : calls)
    right = right && !call.failure && check::same_bits(call.result, alone.forward(call.request));
  CHECK(right, "more ids than a forward takes");
}

}  // namespace

int main() {
  for (int threads : {1, 2, 3})
    for (Execution execution : {Execution::kWide, Execution::kLanes, Execution::kAuto}) {
      Plan plan;
      test_same_bits("F32", CQIL_ACTIVATIONS_F32, plan, execution, threads);
      plan.groups = {{1, 3}, {4, 2}};
      plan.bypass = 1;
      test_same_bits("F16", CQIL_ACTIVATIONS_F32, plan, execution, threads);
      test_same_bits("BF16", CQIL_ACTIVATIONS_BF16, plan, execution, threads);
      for (const char* dtype : {"Q8_0", "Q4_K", "Q6_K"})
        test_same_bits(dtype, CQIL_ACTIVATIONS_INT8, plan, execution, threads);
    }
  test_apart();
  test_order();
  test_many();
  return check::report("rows");
}
