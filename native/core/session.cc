#include "session.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <string>

#include "dtype.h"
#include "error.h"
#include "finite.h"

namespace cqil {
namespace {

cqil_execution chosen(Execution execution) {
  return execution == Execution::kPersistent ? CQIL_PERSISTENT
         : execution == Execution::kLanes    ? CQIL_LANES
                                             : CQIL_WIDE;
}

}  // namespace

Session::Session(std::shared_ptr<Model> model, const Plan& plan, Execution execution, int32_t context_length,
                 cqil_dtype kv_dtype)
    : model_(std::move(model)),
      program_(compile_program(plan, model_->shape().n_layers)),
      sizes_(sizes_of(model_->view(), model_->options(), kv_dtype)),
      execution_(execution),
      tuner_(model_->tuner(program_)),
      context_length_(context_length),
      kv_dtype_(kv_dtype) {
  if (context_length < 1 || context_length > 1 << 24)
    throw Error("INVALID_ARGUMENT", "contextLength is " + std::to_string(context_length) + "; expected 1 to 16777216.");
  if (!(model_->backend().executions(model_->backend_model()) & 1u << chosen(execution)))
    throw Error("BACKEND_UNAVAILABLE",
                std::string("The ") + model_->backend().name +
                    " backend has no persistent execution of this model; expected auto, wide or lanes.");
  model_->bring_in_rest();
  const cqil_program program = program_.view();
  const cqil_session_options options = {context_length, kv_dtype};
  cqil_error error = {};
  check_status(model_->backend().session_create(model_->backend_model(), &program, &options, &backend_session_, &error),
               error);
  const cqil_shape& shape = model_->shape();
  cache_bytes_ = static_cast<uint64_t>(shape.n_layers) * static_cast<uint64_t>(shape.n_kv_heads) *
                 static_cast<uint64_t>(kv_row_bytes(kv_dtype, shape.head_dim)) * static_cast<uint64_t>(context_length) *
                 2;
}

Session::~Session() {
  ahead().cancel(*this);
  if (backend_session_) model_->backend().session_destroy(backend_session_);
}

void Session::cancel() {
  cancel_ = true;
  ahead().cancel(*this);
}

void Session::settle(Execution execution, int32_t threads) {
  if (execution != Execution::kAuto) tuner_.settle({chosen(execution), threads});
}

void Session::check(const ForwardRequest& request) const {
  const int32_t n = static_cast<int32_t>(request.ids.size());
  if (n < 1 || n > CQIL_MAX_BATCH)
    throw Error("INVALID_ARGUMENT",
                "A forward takes 1 to " + std::to_string(CQIL_MAX_BATCH) + " ids, not " + std::to_string(n) + ".");
  if (request.output == CQIL_OUTPUT_TRACE && n > CQIL_MAX_TRACE)
    throw Error("INVALID_ARGUMENT",
                "A trace takes 1 to " + std::to_string(CQIL_MAX_TRACE) + " ids, not " + std::to_string(n) + ".");
  if (request.position < 0 || request.position > filled_)
    throw Error("INVALID_ARGUMENT", "Position " + std::to_string(request.position) +
                                        " is not reached yet: " + std::to_string(filled_) + " positions are filled.");
  if (n > context_length_ - request.position)
    throw Error("CONTEXT_OVERFLOW", std::to_string(n) + " tokens at position " + std::to_string(request.position) +
                                        " do not fit a context of " + std::to_string(context_length_) + ".");
  if (request.output == CQIL_OUTPUT_ALL_LOGITS && n > CQIL_MAX_LOGIT_ROWS)
    throw Error("INVALID_ARGUMENT", "A forward gives the logits of at most " + std::to_string(CQIL_MAX_LOGIT_ROWS) +
                                        " ids at once, not " + std::to_string(n) + ".");
  auto check_id = [&](int32_t id) {
    if (id < 0 || id >= model_->shape().vocab_size)
      throw Error("INVALID_ARGUMENT", "Token id " + std::to_string(id) + " is outside the vocabulary of " +
                                          std::to_string(model_->shape().vocab_size) + ".");
  };
  for (int32_t id : request.ids) check_id(id);
  if (request.has_next) check_id(request.next);
}

namespace {

// Floats that a backend writes for n ids.
size_t result_size(cqil_output output, const cqil_shape& shape, size_t n, size_t n_scores) {
  const auto vocab = static_cast<size_t>(shape.vocab_size);
  switch (output) {
    case CQIL_OUTPUT_LOGITS: return vocab;
    case CQIL_OUTPUT_SCORES: return n_scores;
    case CQIL_OUTPUT_ALL_LOGITS: return n * vocab;
    case CQIL_OUTPUT_TRACE: return static_cast<size_t>(shape.n_layers) * 3 * n * static_cast<size_t>(shape.dim);
    case CQIL_OUTPUT_SHORTLIST:
    case CQIL_OUTPUT_NONE: break;
  }
  return 0;
}

}  // namespace

// A NaN or infinity anywhere on the way makes the logits NaN, so only they are checked. A trace is given as it is: it
// shows where the value arose.
void Session::expect_finite(const ForwardRequest& request, const std::vector<float>& result,
                            const cqil_shortlist* shortlist) const {
  if (request.output == CQIL_OUTPUT_TRACE) return;
  size_t at = 0;  // of the ids, the one after which logits are not finite
  if (shortlist) {
    if (!std::isnan(shortlist->log_sum_exp)) return;
    at = request.ids.size() - 1;
  } else {
    const size_t first = first_not_finite(result.data(), result.size());
    if (first == result.size()) return;
    const size_t vocab = static_cast<size_t>(model_->shape().vocab_size);
    at = request.output == CQIL_OUTPUT_SCORES       ? first
         : request.output == CQIL_OUTPUT_ALL_LOGITS ? first / vocab
                                                    : request.ids.size() - 1;
  }
  std::string message = "The logits after the token at position " +
                        std::to_string(request.position + static_cast<int64_t>(at)) +
                        " are not finite: expected weights without NaN and Infinity, and values that float32 holds";
  if (kv_dtype_ != CQIL_F32)
    message += std::string(", and keys and values that the KV cache holds, which is ") +
               (kv_dtype_ == CQIL_F16 ? "f16, to 65504" : "q8_0, to 8.3e6") +
               ": with kvCache f32, there is no such limit";
  throw Error("NOT_FINITE", message + ".");
}

std::vector<float> Session::forward(const ForwardRequest& request) { return run(request, nullptr, nullptr, cancel_); }

cqil_shortlist Session::shortlist(const ForwardRequest& request, const CancelFlag* cancel) {
  if (request.count < 1 || request.count > CQIL_MAX_SHORTLIST)
    throw Error("INVALID_ARGUMENT", "A shortlist has 1 to " + std::to_string(CQIL_MAX_SHORTLIST) + " entries, not " +
                                        std::to_string(request.count) + ".");
  if (const auto kept = ahead().take(*this, request)) return *kept;
  cqil_shortlist list = {};
  list.count = request.count;
  run(request, nullptr, &list, cancel ? *cancel : cancel_);
  return list;
}

Timeline Session::timeline(const ForwardRequest& request) {
  Timeline timeline;
  run(request, &timeline.spans, nullptr, cancel_);
  auto& spans = timeline.spans;
  spans.erase(std::remove_if(spans.begin(), spans.end(), [](const cqil_span& span) { return span.step < 0; }),
              spans.end());
  if (spans.empty())
    throw Error("BACKEND_UNAVAILABLE", std::string("The ") + model_->backend().name +
                                           " backend keeps no times of phases; expected the cpu backend.");
  timeline.schedule = schedule_;
  return timeline;
}

std::vector<float> Session::run(const ForwardRequest& request, std::vector<cqil_span>* spans, cqil_shortlist* shortlist,
                                const CancelFlag& cancel) {
  std::lock_guard<std::mutex> lock(model_->forward_mutex());
  // What was given up before its turn must not write to the cache any more: another forward may have had its turn
  // since.
  if (cancel) throw Error("ABORTED", "The call was aborted.");
  ahead().stop_but(&cancel);
  check(request);
  if ((request.output == CQIL_OUTPUT_SHORTLIST) != (shortlist != nullptr))
    throw Error("INVALID_ARGUMENT", "A shortlist was asked for where none is given, or the reverse.");
  const int32_t n = static_cast<int32_t>(request.ids.size());
  std::vector<int32_t> targets;
  if (request.output == CQIL_OUTPUT_SCORES) {
    targets.assign(request.ids.begin() + 1, request.ids.end());
    if (request.has_next) targets.push_back(request.next);
  }
  std::vector<float> result(result_size(request.output, model_->shape(), request.ids.size(), targets.size()));

  cqil_forward call = {};
  call.ids = request.ids.data();
  call.n_ids = n;
  call.position = request.position;
  call.output = request.output;
  call.targets = targets.data();
  call.n_scores = static_cast<int32_t>(targets.size());
  call.result = result.data();
  call.shortlist = shortlist;
  call.cancelled = [](const void* flag) -> int32_t { return *static_cast<const CancelFlag*>(flag); };
  call.cancel_flag = &cancel;
  const bool tune = execution_ == Execution::kAuto && n == 1 && request.output != CQIL_OUTPUT_TRACE;
  Way way = tune ? tuner_.next() : Way{chosen(execution_), 0};
  if (way.threads == 0) way.threads = model_->team_size();
  place(program_, way, sizes_, {request.position, n, request.output == CQIL_OUTPUT_TRACE}, schedule_);
  call.execution = way.execution;
  call.schedule = schedule_.view();
  if (spans) {
    const auto each = static_cast<size_t>(std::max(1, model_->threads()));
    spans->assign(each * schedule_.steps.size(), cqil_span{-1, 0, 0, 0});
    call.spans = spans->data();
    call.n_spans = static_cast<int32_t>(spans->size());
  }
  call.patience_ns = tune && !spans ? static_cast<int64_t>(tuner_.patience() * 1e9) : 0;

  model_->weights().expect_unchanged();
  filled_ = request.position;  // what follows is overwritten, whether or not the call succeeds
  cqil_error error = {};
  const auto start = std::chrono::steady_clock::now();
  const cqil_status status = model_->backend().forward(backend_session_, &call, &error);
  check_status(status, error);
  using Seconds = std::chrono::duration<double>;
  const auto end = std::chrono::steady_clock::now();
  if (tune && !spans) tuner_.record(Seconds(end - start).count(), Seconds(end.time_since_epoch()).count());
  model_->weights().expect_unchanged();  // the files may have changed while this was computed
  expect_finite(request, result, shortlist);
  filled_ = request.position + n;
  return result;
}

}  // namespace cqil
