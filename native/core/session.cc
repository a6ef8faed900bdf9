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
      sizes_(sizes_of(model_->view(), model_->options(), kv_dtype)),
      execution_(execution),
      context_length_(context_length),
      kv_dtype_(kv_dtype) {
  Program program = compile_program(plan, model_->shape().n_layers);
  if (context_length < 1 || context_length > 1 << 24)
    throw Error("INVALID_ARGUMENT", "contextLength is " + std::to_string(context_length) + "; expected 1 to 16777216.");
  if (!(model_->backend().executions(model_->backend_model()) & 1u << chosen(execution)))
    throw Error("BACKEND_UNAVAILABLE",
                std::string("The ") + model_->backend().name +
                    " backend has no persistent execution of this model; expected auto, wide or lanes.");
  if (model_->weights().shares()) model_->weights().shares()->expect_serves(program);
  model_->bring_in_rest();
  workspace_ = model_->workspace(std::move(program));
  const cqil_cache_options options = {context_length, kv_dtype};
  cqil_error error = {};
  check_status(model_->backend().cache_create(workspace_->backend(), &options, &cache_, &error), error);
  if (Leader* leader = model_->leader()) rank_cache_ = leader->new_id();
  const cqil_shape& shape = model_->shape();
  cache_bytes_ = static_cast<uint64_t>(shape.n_layers) * static_cast<uint64_t>(shape.n_kv_heads) *
                 static_cast<uint64_t>(kv_row_bytes(kv_dtype, shape.head_dim)) * static_cast<uint64_t>(context_length) *
                 2;
}

Session::~Session() {
  ahead().cancel(*this);
  if (cache_) model_->backend().cache_destroy(cache_);
  if (rank_cache_ > 0) model_->leader()->close(rank_cache_);
}

void Session::cancel() {
  cancel_ = true;
  ahead().cancel(*this);
}

void Session::settle(Execution execution, int32_t threads) {
  if (execution != Execution::kAuto) workspace_->tuner().settle({chosen(execution), threads});
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
  if (request.output == CQIL_OUTPUT_SHORTLIST && (request.count < 1 || request.count > CQIL_MAX_SHORTLIST))
    throw Error("INVALID_ARGUMENT", "A shortlist has 1 to " + std::to_string(CQIL_MAX_SHORTLIST) + " entries, not " +
                                        std::to_string(request.count) + ".");
  if (request.output == CQIL_OUTPUT_SHORTLIST &&
      (request.listed < 1 || request.listed > std::min(n, CQIL_MAX_LOGIT_ROWS)))
    throw Error("INVALID_ARGUMENT", "A forward of " + std::to_string(n) + " ids gives 1 to " +
                                        std::to_string(std::min(n, CQIL_MAX_LOGIT_ROWS)) + " shortlists, not " +
                                        std::to_string(request.listed) + ".");
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
void Session::expect_finite(const Call& call) const {
  const ForwardRequest& request = call.request;
  if (request.output == CQIL_OUTPUT_TRACE) return;
  size_t at = 0;  // of the ids, the one after which logits are not finite
  if (request.output == CQIL_OUTPUT_SHORTLIST) {
    size_t i = 0;
    while (i < call.shortlists.size() && !std::isnan(call.shortlists[i].log_sum_exp)) i++;
    if (i == call.shortlists.size()) return;
    at = request.ids.size() - call.shortlists.size() + i;
  } else {
    const size_t first = first_not_finite(call.result.data(), call.result.size());
    if (first == call.result.size()) return;
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

std::vector<float> Session::forward(const ForwardRequest& request) {
  if (request.output == CQIL_OUTPUT_SHORTLIST)
    throw Error("INVALID_ARGUMENT", "A shortlist was asked for where none is given.");
  return run_alone(request, cancel_).result;
}

cqil_shortlist Session::shortlist(const ForwardRequest& request, const CancelFlag* cancel) {
  if (request.output != CQIL_OUTPUT_SHORTLIST || request.listed != 1)
    throw Error("INVALID_ARGUMENT", "One shortlist is given where something else was asked for.");
  if (const auto kept = ahead().take(*this, request)) return *kept;
  return run_alone(request, cancel ? *cancel : cancel_).shortlists[0];
}

Timeline Session::timeline(const ForwardRequest& request) {
  if (request.output == CQIL_OUTPUT_SHORTLIST)
    throw Error("INVALID_ARGUMENT", "A shortlist was asked for where none is given.");
  Timeline timeline;
  run_alone(request, cancel_, &timeline);
  auto& spans = timeline.spans;
  spans.erase(std::remove_if(spans.begin(), spans.end(), [](const cqil_span& span) { return span.step < 0; }),
              spans.end());
  if (spans.empty())
    throw Error("BACKEND_UNAVAILABLE", std::string("The ") + model_->backend().name +
                                           " backend keeps no times of phases; expected the cpu backend.");
  return timeline;
}

Call Session::run_alone(const ForwardRequest& request, const CancelFlag& cancel, Timeline* timeline) {
  Call call{*this, request, cancel};
  Call* const calls[] = {&call};
  run(calls, 1, timeline);
  if (call.failure) std::rethrow_exception(call.failure);
  return call;
}

void Session::run_together(const std::vector<Call*>& calls) {
  std::vector<Call*> left = calls, now, later;
  try {
    later.reserve(left.size());
    now.reserve(left.size());
    while (!left.empty()) {
      const Workspace& workspace = left[0]->session.workspace();
      size_t ids = 0;
      now.clear();
      later.clear();
      for (Call* call : left) {
        const bool fits = now.empty() || ids + call->request.ids.size() <= CQIL_MAX_BATCH;
        // Calls of a session keep their order.
        auto of_this_session = [&](const Call* other) { return &other->session == &call->session; };
        const bool repeats = std::any_of(now.begin(), now.end(), of_this_session) ||
                             std::any_of(later.begin(), later.end(), of_this_session);
        if (&call->session.workspace() != &workspace || !fits || repeats) {
          later.push_back(call);
          continue;
        }
        ids += call->request.ids.size();
        now.push_back(call);
      }
      run(now.data(), now.size(), nullptr);
      left.swap(later);
    }
  } catch (...) {  // no memory
    for (Call* call : left)
      if (!call->failure) call->failure = std::current_exception();
  }
}

void Session::run(Call* const* calls, size_t n, Timeline* timeline) {
  try {
    const Session& first = calls[0]->session;
    std::lock_guard<std::mutex> lock(first.model_->forward_mutex());
    PresentForward& present = first.workspace_->present();
    present.calls.clear();
    present.calls.reserve(n);
    for (size_t i = 0; i < n; i++) try {
        Call& call = *calls[i];
        // A call that was cancelled before its turn must not write to the cache: another forward may have had its turn
        // since.
        if (call.cancel) throw Error("ABORTED", "The call was aborted.");
        call.session.check(call.request);
        present.calls.push_back(&call);
      } catch (...) {
        calls[i]->failure = std::current_exception();
      }
    if (present.calls.empty()) return;
    first.ahead().stop_but(&calls[0]->cancel);
    compute(present, timeline);
  } catch (...) {
    for (size_t i = 0; i < n; i++)
      if (!calls[i]->failure) calls[i]->failure = std::current_exception();
  }
}

cqil_row Session::row_of(Call& call, std::vector<int32_t>& targets) const {
  const ForwardRequest& request = call.request;
  const size_t before = targets.size();
  if (request.output == CQIL_OUTPUT_SCORES) {
    targets.insert(targets.end(), request.ids.begin() + 1, request.ids.end());
    if (request.has_next) targets.push_back(request.next);
  }
  const size_t n_scores = targets.size() - before;
  call.result.resize(result_size(request.output, model_->shape(), request.ids.size(), n_scores));
  if (request.output == CQIL_OUTPUT_SHORTLIST) call.shortlists.resize(static_cast<size_t>(request.listed));
  for (cqil_shortlist& list : call.shortlists) list.count = request.count;

  cqil_row row = {};
  row.cache = cache_;
  row.ids = request.ids.data();
  row.n_ids = static_cast<int32_t>(request.ids.size());
  row.position = request.position;
  row.output = request.output;
  row.targets = targets.data() + before;
  row.n_scores = static_cast<int32_t>(n_scores);
  row.result = call.result.data();
  row.shortlists = call.shortlists.data();
  row.n_listed = static_cast<int32_t>(call.shortlists.size());
  return row;
}

void Session::forward_on_ranks(const PresentForward& present, const cqil_forward& forward) {
  const Session& first = present.calls[0]->session;
  const Model& model = *first.model_;
  Leader* const leader = model.leader();
  if (leader) {
    std::vector<RankCache> caches;
    for (const Call* call : present.calls)
      caches.push_back({call->session.rank_cache_, {call->session.context_length_, call->session.kv_dtype_}});
    leader->announce(first.workspace_->id(), first.workspace_->program(), forward, caches);
  }
  cqil_error error = {};
  const cqil_status status = model.backend().forward(first.workspace_->backend(), &forward, &error);
  if (leader && status != CQIL_OK && status != CQIL_ABORTED && status != CQIL_RANK_LOST) leader->give_up(error.text);
  check_status(status, error);
}

void Session::list_rows(PresentForward& present) {
  size_t scored = 0;
  for (const Call* call : present.calls)
    if (call->request.output == CQIL_OUTPUT_SCORES) scored += call->request.ids.size();
  present.targets.clear();
  present.targets.reserve(scored);  // rows point into them
  present.rows.clear();
  for (Call* call : present.calls) present.rows.push_back(call->session.row_of(*call, present.targets));
}

void Session::conclude(Call& call, bool alone) {
  if (!alone && call.cancel) throw Error("ABORTED", "The call was aborted.");
  expect_finite(call);
  const float unit = model_->weights().folding().stream_unit;
  if (call.request.output == CQIL_OUTPUT_TRACE && unit != 1)
    for (float& value : call.result) value *= unit;
  filled_ = call.request.position + static_cast<int32_t>(call.request.ids.size());
}

namespace {

// One call that is cancelled does not end what the others want.
int32_t all_cancelled(const void* calls) {
  const auto& all = *static_cast<const std::vector<Call*>*>(calls);
  return std::all_of(all.begin(), all.end(), [](const Call* call) { return call->cancel.load(); });
}

// The forward of the present rows, without its execution and schedule.
cqil_forward forward_of(const PresentForward& present) {
  cqil_forward forward = {};
  forward.rows = present.rows.data();
  forward.n_rows = static_cast<int32_t>(present.rows.size());
  forward.cancelled = &all_cancelled;
  forward.cancel_flag = &present.calls;
  return forward;
}

// Makes the backend write the times of the steps to the timeline.
void time_steps(cqil_forward& forward, const Schedule& schedule, int32_t threads, Timeline& timeline) {
  timeline.schedule = schedule;
  const auto each = static_cast<size_t>(std::max(1, threads));
  timeline.spans.assign(each * schedule.steps.size(), cqil_span{-1, 0, 0, 0});
  forward.spans = timeline.spans.data();
  forward.n_spans = static_cast<int32_t>(timeline.spans.size());
}

}  // namespace

void Session::compute(PresentForward& present, Timeline* timeline) {
  Session& first = present.calls[0]->session;
  Model& model = *first.model_;
  Workspace& workspace = *first.workspace_;
  list_rows(present);
  cqil_forward forward = forward_of(present);
  const Extent extent = extent_of(present.rows);
  const bool tune = first.execution_ == Execution::kAuto && extent.n_ids == 1 && !extent.traced;
  ExecutionTuner& tuner = workspace.tuner();
  Way way = tune ? tuner.next() : Way{chosen(first.execution_), 0};
  if (way.threads == 0) way.threads = model.team_size();
  place(workspace.program(), way, first.sizes_, extent, present.schedule, model.ranks());
  forward.execution = way.execution;
  forward.schedule = present.schedule.view();
  if (timeline) time_steps(forward, present.schedule, model.threads(), *timeline);
  forward.patience_ns = tune && !timeline ? static_cast<int64_t>(tuner.patience() * 1e9) : 0;

  model.weights().expect_unchanged();
  // What follows is overwritten, whether or not the call succeeds.
  for (const Call* call : present.calls) call->session.filled_ = call->request.position;
  const auto start = std::chrono::steady_clock::now();
  forward_on_ranks(present, forward);
  using Seconds = std::chrono::duration<double>;
  const auto end = std::chrono::steady_clock::now();
  if (tune && !timeline) tuner.record(Seconds(end - start).count(), Seconds(end.time_since_epoch()).count());
  model.weights().expect_unchanged();  // the files may have changed while this was computed
  for (Call* call : present.calls) try {
      call->session.conclude(*call, present.calls.size() == 1);
    } catch (...) {
      call->failure = std::current_exception();
    }
}

}  // namespace cqil
