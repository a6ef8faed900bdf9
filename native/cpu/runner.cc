#include "runner.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <functional>

#include "phases.h"

namespace cqil {
namespace {

int64_t nanoseconds() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

// One member's way through a schedule.
class Runner {
 public:
  Runner(const Pass& pass, int members, int member, int64_t began, cqil_span* spans)
      : pass_(pass), workspace_(pass.workspace), members_(members), member_(member), began_(began), spans_(spans) {}

  void run() {
    const cqil_schedule& schedule = pass_.request.schedule;
    bool all_met = true;  // right before this step; only then may a member leave, as nobody waits for it
    for (int32_t i = 0; i < schedule.n_steps; i++) {
      const cqil_step& step = schedule.steps[i];
      const bool stopped = workspace_.stop_at.load(std::memory_order_relaxed) <= i;
      left_ = left_ || (all_met && workspace_.alone_from.load(std::memory_order_relaxed) <= i);
      if ((stopped && (all_met || left_)) || (left_ && member_ != 0)) return;
      const Crew crew = crew_of(step);
      if (crew.member >= 0 && !stopped) compute(crew, i);
      if (step.ends_stage && member_ == 0 && !stopped) look_up(crew, i + 1);
      if (left_) continue;
      if (step.then == CQIL_EVERYBODY) everybody().wait();
      else if (step.then == CQIL_CREW && crew.member >= 0) crew.wait();
      all_met = step.then == CQIL_EVERYBODY;
    }
  }

 private:
  Crew everybody() const { return {member_, members_, &workspace_.all, scratch()}; }
  Scratch* scratch() const { return &workspace_.scratch[static_cast<size_t>(member_)]; }

  // This member's crew in a step; a crew in which it is no member, -1, if it has no part in the step.
  Crew crew_of(const cqil_step& step) const {
    if (left_) return {0, 1, nullptr, scratch()};
    const int member = member_ % step.n_crews == step.crew ? member_ / step.n_crews : -1;
    if (step.alone) return {member == 0 ? 0 : -1, 1, nullptr, scratch()};
    if (step.n_crews == 1) return everybody();
    const int size = (members_ - step.crew + step.n_crews - 1) / step.n_crews;
    const auto& crews = workspace_.crews[static_cast<size_t>(step.n_crews - 2)];
    return {member, size, crews[static_cast<size_t>(step.crew)].get(), scratch()};
  }

  void compute(const Crew& crew, int32_t index) {
    if (!spans_) return compute_untimed(crew, index);
    const int64_t begin = nanoseconds();
    compute_untimed(crew, index);
    *spans_++ = {index, member_, begin - began_, nanoseconds() - began_};
  }

  void compute_untimed(const Crew& crew, int32_t index) {
    const cqil_step& step = pass_.request.schedule.steps[index];
    const Lanes lanes = {step.first_layer, step.first_lane, step.n_lanes, claimed(step.phase, step.first_lane)};
    switch (step.op) {
      case CQIL_OP_EMBED: return pass_.embed(crew);
      case CQIL_OP_QKV: return pass_.qkv(crew, lanes);
      case CQIL_OP_ATTENTION: return pass_.attention(crew, lanes);
      case CQIL_OP_ATTENTION_OUT: return pass_.attention_out(crew, lanes);
      case CQIL_OP_ATTENTION_POST_NORM: return pass_.attention_post_norm(crew, lanes);
      case CQIL_OP_GATE_UP: return pass_.gate_up(crew, lanes);
      case CQIL_OP_DOWN: return pass_.down(crew, lanes);
      case CQIL_OP_DOWN_APART: return pass_.down_apart(crew, lanes);
      case CQIL_OP_MLP_POST_NORM: return pass_.mlp_post_norm(crew, lanes);
      case CQIL_OP_SHARE_ATTENTION:
        if (crew.member == 0 && !pass_.share_attention(lanes)) workspace_.stop_at = index + 1;
        return;
      case CQIL_OP_REDUCE:
        if (crew.member == 0 && !pass_.reduce(lanes)) workspace_.stop_at = index + 1;
        return;
      case CQIL_OP_RECORD: return pass_.record(crew, step.first_layer, step.n_lanes);
      case CQIL_OP_JOIN: return pass_.join(crew, step.n_lanes);
      case CQIL_OP_HEAD: return pass_.head(crew, lanes.claimed);
    }
  }

  // Between stages: is the call cancelled, and do the others keep this member waiting? By number, since a member that
  // comes late to a step may learn of what is further on, where the others wait for it.
  void look_up(const Crew& crew, int32_t next) {
    // Ranks stop together, at an exchange.
    if (!workspace_.reduction && cqil_cancelled(&pass_.request)) workspace_.stop_at = next;
    const int64_t patience = pass_.request.patience_ns;
    if (crew.size > 1 && patience > 0 && nanoseconds() - began_ > patience) workspace_.alone_from = next;
  }

  Claim* claimed(int32_t phase, int32_t lane) const {
    return &workspace_.claimed[static_cast<size_t>((phase * workspace_.program.max_lanes + lane) * members_)];
  }

  const Pass& pass_;
  CpuWorkspace& workspace_;
  const int members_;
  const int member_;
  const int64_t began_;  // nanoseconds() when the call did
  cqil_span* spans_;     // where this member notes next when it computed what; null: not wanted
  bool left_ = false;    // the others have left, and member 0 goes on alone
};

// Whether member 0 computes everything.
bool all_alone(const cqil_schedule& schedule) {
  return std::all_of(schedule.steps, schedule.steps + schedule.n_steps,
                     [](const cqil_step& step) { return step.alone && step.n_crews == 1; });
}

}  // namespace

cqil_status run(CpuWorkspace& workspace, const cqil_forward& request, cqil_error& error) {
  const int64_t began = nanoseconds();
  workspace.take(request);
  const Pass pass(workspace, request);
  Team& team = workspace.model.team;
  const int members = std::min(request.schedule.threads, team.size());
  workspace.share_among(members);
  if (workspace.reduction) workspace.reduction->begin();
  workspace.stop_at = workspace.alone_from = CpuWorkspace::kNever;
  const int spans_each = request.n_spans / team.size();
  const auto work = [&](int member) {
    Runner(pass, members, member, began, request.spans ? request.spans + member * spans_each : nullptr).run();
  };
  // Threads with nothing to do are not woken. `work` goes by reference: a copy of what it captures would take memory.
  team.run(all_alone(request.schedule) ? 1 : members, std::cref(work));
  if (workspace.reduction && workspace.reduction->status() != CQIL_OK) {
    std::snprintf(error.text, sizeof error.text, "%s", workspace.reduction->text());
    return workspace.reduction->status();
  }
  return workspace.stop_at == CpuWorkspace::kNever ? CQIL_OK : CQIL_ABORTED;
}

}  // namespace cqil
