#include "ranks.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <map>
#include <string>

#include "error.h"
#include "model.h"
#include "schedule.h"
#include "workspace.h"

namespace cqil {
namespace {

// A message is a list of numbers: items, each of which begins with its kind.
enum Item : int32_t { kLetGo, kOpenWorkspace, kOpenCache, kClose, kAnswer, kForward };

// The first part of every message. A message about one token fits into it.
struct Envelope {
  static constexpr int32_t kRoom = 127;
  int32_t count;
  int32_t first[kRoom];
};

// A rank's answer: whether it has opened what it was told to open.
struct Answer {
  int32_t failed;
  char code[28];
  char text[480];
};

std::vector<int32_t> receive(Exchange& exchange) {
  Envelope envelope = {};
  exchange.broadcast(&envelope, sizeof envelope, std::chrono::nanoseconds(0));
  std::vector<int32_t> message(static_cast<size_t>(envelope.count));
  const size_t inside = std::min<size_t>(message.size(), Envelope::kRoom);
  std::copy(envelope.first, envelope.first + inside, message.begin());
  if (message.size() > inside)
    exchange.broadcast(message.data() + inside, static_cast<int64_t>((message.size() - inside) * sizeof(int32_t)),
                       std::chrono::nanoseconds(0));
  return message;
}

void add_program(std::vector<int32_t>& message, const Program& program) {
  std::vector<int32_t> groups;
  for (const cqil_phase& phase : program.phases)
    if (phase.kind == CQIL_QKV && phase.n_lanes > 1) groups.insert(groups.end(), {phase.first_layer, phase.n_lanes});
  message.insert(message.end(), {program.bypass, program.bypass_residual, static_cast<int32_t>(groups.size() / 2)});
  message.insert(message.end(), groups.begin(), groups.end());
}

void add_forward(std::vector<int32_t>& message, int32_t workspace_id, const cqil_forward& forward,
                 const std::vector<RankCache>& caches) {
  message.insert(message.end(), {kForward, workspace_id, forward.execution, forward.n_rows});
  for (int32_t i = 0; i < forward.n_rows; i++) {
    const cqil_row& row = forward.rows[i];
    message.insert(message.end(), {caches[static_cast<size_t>(i)].id, row.position, row.output, row.n_scores,
                                   row.n_listed, row.n_ids});
    message.insert(message.end(), row.ids, row.ids + row.n_ids);
  }
}

}  // namespace

Leader::~Leader() {
  try {
    std::vector<int32_t> message = {kLetGo};
    send(message);
  } catch (const std::exception&) {  // followers that are lost need not be let go
  }
}

void Leader::close(int32_t id) {
  std::lock_guard<std::mutex> lock(closing_);
  closed_.push_back(id);
}

void Leader::add_closed(std::vector<int32_t>& message) {
  std::lock_guard<std::mutex> lock(closing_);
  for (int32_t id : closed_)
    if (open_.erase(id) > 0) message.insert(message.end(), {kClose, id});
  closed_.clear();
}

void Leader::announce(int32_t workspace_id, const Program& program, const cqil_forward& forward,
                      const std::vector<RankCache>& caches) {
  std::vector<int32_t> message, opened;
  add_closed(message);
  if (open_.count(workspace_id) == 0) {
    opened.push_back(workspace_id);
    message.insert(message.end(), {kOpenWorkspace, workspace_id});
    add_program(message, program);
  }
  for (const RankCache& cache : caches) {
    if (open_.count(cache.id) > 0) continue;
    opened.push_back(cache.id);
    message.insert(message.end(),
                   {kOpenCache, cache.id, workspace_id, cache.options.context_length, cache.options.kv_dtype});
  }
  if (!opened.empty()) message.push_back(kAnswer);
  add_forward(message, workspace_id, forward, caches);
  send(message);
  if (opened.empty()) return;
  hear_answers();
  open_.insert(opened.begin(), opened.end());
}

void Leader::send(std::vector<int32_t>& message) {
  Envelope envelope = {};
  envelope.count = static_cast<int32_t>(message.size());
  const size_t inside = std::min<size_t>(message.size(), Envelope::kRoom);
  std::copy(message.begin(), message.begin() + static_cast<std::ptrdiff_t>(inside), envelope.first);
  exchange_.broadcast(&envelope, sizeof envelope, patience_);
  if (message.size() > inside)
    exchange_.broadcast(message.data() + inside, static_cast<int64_t>((message.size() - inside) * sizeof(int32_t)),
                        patience_);
}

namespace {

// The answers of all ranks, in the order of ranks.
std::vector<Answer> gather_answers(Exchange& exchange, const Answer& mine, std::chrono::nanoseconds patience) {
  std::vector<Answer> answers(static_cast<size_t>(exchange.state().size));
  exchange.gather(&mine, answers.data(), sizeof mine, patience);
  return answers;
}

}  // namespace

void Leader::hear_answers() {
  const std::vector<Answer> answers = gather_answers(exchange_, {}, patience_);
  for (size_t rank = 0; rank < answers.size(); rank++) {
    const Answer& answer = answers[rank];
    if (!answer.failed) continue;
    const bool memory = std::strcmp(answer.code, "OUT_OF_MEMORY") == 0;
    throw Error(memory ? "OUT_OF_MEMORY" : "INTERNAL", "Rank " + std::to_string(rank) + ": " + answer.text);
  }
}

namespace {

class Follower {
 public:
  Follower(Model& model, Exchange& exchange, std::chrono::nanoseconds patience)
      : model_(model), exchange_(exchange), patience_(patience) {}
  ~Follower() {
    for (auto& cache : caches_) model_.backend().cache_destroy(cache.second.cache);
  }
  Follower(const Follower&) = delete;

  void run() {
    while (!let_go_) {
      message_ = receive(exchange_);
      for (at_ = 0; at_ < message_.size() && !let_go_;)
        if (!take_item()) break;
    }
  }

 private:
  struct Cache {
    cqil_backend_cache* cache;
    std::shared_ptr<Workspace> workspace;  // which outlives the cache
    Sizes sizes;
  };

  int32_t next() {
    if (at_ == message_.size()) throw Error("INTERNAL", "A message from the leader is cut short.");
    return message_[at_++];
  }

  // False where the rest of the message no longer counts, as a rank could not open something.
  bool take_item() {
    switch (next()) {
      case kLetGo: let_go_ = true; return true;
      case kOpenWorkspace: attempt([&] { open_workspace(); }); return true;
      case kOpenCache: attempt([&] { open_cache(); }); return true;
      case kClose: close(next()); return true;
      case kAnswer: return answer();
      case kForward: forward(); return true;
      default: throw Error("INTERNAL", "The leader sent an item of an unknown kind.");
    }
  }

  // A failure becomes part of the answer and ends nothing here: the leader may go on without what was to be opened.
  template <class Work>
  void attempt(Work work) {
    try {
      work();
    } catch (const Error& error) {
      fail(error.code(), error.what());
    } catch (const std::bad_alloc&) {
      fail("OUT_OF_MEMORY", "No memory for a session.");
    }
  }

  void fail(const char* code, const char* text) {
    answer_.failed = 1;
    std::snprintf(answer_.code, sizeof answer_.code, "%s", code);
    std::snprintf(answer_.text, sizeof answer_.text, "%s", text);
  }

  bool answer() {
    const std::vector<Answer> answers = gather_answers(exchange_, answer_, patience_);
    answer_ = {};
    return std::none_of(answers.begin(), answers.end(), [](const Answer& one) { return one.failed != 0; });
  }

  void open_workspace() {
    const int32_t id = next();
    Plan plan;
    plan.bypass = next();
    plan.bypass_residual = next() != 0;
    for (int32_t groups = next(); groups > 0; groups--) {
      const int32_t first = next();
      plan.groups.push_back({first, next()});
    }
    if (workspaces_.count(id) > 0) return;
    Program program = compile_program(plan, model_.shape().n_layers);
    model_.bring_in_rest();
    workspaces_[id] = model_.workspace(std::move(program));
  }

  void open_cache() {
    const int32_t id = next(), workspace_id = next(), context = next();
    const auto kv_dtype = static_cast<cqil_dtype>(next());
    const auto workspace = workspaces_.find(workspace_id);
    if (caches_.count(id) > 0 || workspace == workspaces_.end()) return;  // the answer says so already
    const cqil_cache_options options = {context, kv_dtype};
    cqil_error error = {};
    cqil_backend_cache* cache = nullptr;
    check_status(model_.backend().cache_create(workspace->second->backend(), &options, &cache, &error), error);
    caches_[id] = {cache, workspace->second, sizes_of(model_.view(), model_.options(), kv_dtype)};
  }

  void close(int32_t id) {
    workspaces_.erase(id);
    const auto cache = caches_.find(id);
    if (cache == caches_.end()) return;
    model_.backend().cache_destroy(cache->second.cache);
    caches_.erase(cache);
  }

  void forward() {
    Workspace& workspace = *workspaces_.at(next());
    PresentForward& present = workspace.present();
    cqil_forward forward = {};
    forward.execution = static_cast<cqil_execution>(next());
    present.rows.assign(static_cast<size_t>(next()), cqil_row{});
    const Sizes* sizes = nullptr;
    for (cqil_row& row : present.rows) {
      const Cache& cache = caches_.at(next());
      if (!sizes) sizes = &cache.sizes;
      row.cache = cache.cache;
      row.position = next();
      row.output = static_cast<cqil_output>(next());
      row.n_scores = next();
      row.n_listed = next();
      row.n_ids = next();
      if (row.n_ids < 1 || static_cast<size_t>(row.n_ids) > message_.size() - at_)
        throw Error("INTERNAL", "A row that the leader sent has no ids, or too many.");
      row.ids = message_.data() + at_;
      at_ += static_cast<size_t>(row.n_ids);
    }
    forward.rows = present.rows.data();
    forward.n_rows = static_cast<int32_t>(present.rows.size());
    place(workspace.program(), {forward.execution, model_.team_size()}, *sizes, extent_of(present.rows),
          present.schedule, model_.ranks());
    forward.schedule = present.schedule.view();
    cqil_error error = {};
    const cqil_status status = model_.backend().forward(workspace.backend(), &forward, &error);
    if (status != CQIL_ABORTED) check_status(status, error);
  }

  Model& model_;
  Exchange& exchange_;
  const std::chrono::nanoseconds patience_;
  std::map<int32_t, std::shared_ptr<Workspace>> workspaces_;
  std::map<int32_t, Cache> caches_;
  std::vector<int32_t> message_;
  size_t at_ = 0;
  Answer answer_ = {};
  bool let_go_ = false;
};

}  // namespace

void follow(Model& model, Exchange& exchange, std::chrono::nanoseconds patience) {
  try {
    Follower(model, exchange, patience).run();
  } catch (const std::exception& error) {
    exchange.abort(-1, ("Rank " + std::to_string(exchange.state().rank) + " gave up: " + error.what()).c_str());
    throw;
  }
}

}  // namespace cqil
