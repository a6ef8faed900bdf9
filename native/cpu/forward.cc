#include "forward.h"

#include <algorithm>
#include <chrono>

#include "phases.h"

namespace cqil {
namespace {

constexpr int kPhasesPerStage = 5;
constexpr int kAllLanes = -1;

int64_t nanoseconds() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Where one member notes when it computed what, if that is wanted.
struct Spans {
  cqil_span* next;  // null: not wanted
  int64_t began;    // nanoseconds() when the call began
};

// One member's way through the program.
class Walk {
 public:
  Walk(const Pass& pass, int member, Spans spans)
      : pass_(pass),
        spans_(spans),
        session_(pass.session),
        team_size_(session_.model.team.size()),
        member_(member),
        all_{member, team_size_, &session_.all, &session_.scratch[static_cast<size_t>(member)]} {}

  void run() {
    const std::vector<cqil_phase>& phases = session_.phases;
    for (size_t i = 0; i < phases.size();) {
      const cqil_phase& phase = phases[i];
      if (phase.kind == CQIL_EMBED) {
        timed(i, kAllLanes, [&] { pass_.embed(all_); });
        all_.wait();
        i += 1;
      } else if (phase.kind == CQIL_HEAD) {
        timed(i, kAllLanes, [&] { pass_.head(all_, claimed(i, 0)); });
        i += 1;
      } else {
        if (phase.n_lanes > 1 && pass_.request.execution == CQIL_LANES) stage_in_lanes(i, phase);
        else stage_wide(i, phase);
        if (member_ == 0 && cqil_cancelled(&pass_.request)) session_.cancelled = true;
        all_.wait();
        if (session_.cancelled.load(std::memory_order_relaxed)) return;
        i += kPhasesPerStage;
      }
    }
  }

 private:
  // Every phase takes all lanes, shared by the whole team.
  void stage_wide(size_t i, const cqil_phase& phase) {
    auto lanes = [&](size_t step) { return Lanes{phase.first_layer, 0, phase.n_lanes, claimed(i + step, 0)}; };
    timed(i, kAllLanes, [&] { pass_.qkv(all_, lanes(0)); });
    all_.wait();
    timed(i + 1, kAllLanes, [&] { pass_.attention(all_, lanes(1)); });
    all_.wait();
    timed(i + 2, kAllLanes, [&] { pass_.attention_out(all_, lanes(2)); });
    all_.wait();
    timed(i + 3, kAllLanes, [&] { pass_.gate_up(all_, lanes(3)); });
    all_.wait();
    if (pass_.request.output != CQIL_OUTPUT_TRACE) return timed(i + 4, kAllLanes, [&] { pass_.down(all_, lanes(4)); });
    // The same sum to the same bits, with every m_j kept for a while.
    pass_.down_apart(all_, lanes(4));
    all_.wait();
    pass_.record(all_, phase.first_layer, phase.n_lanes);
    pass_.join(all_, phase.n_lanes);
  }

  // Every lane has a crew of its own; crews meet only where the formula joins lanes: at a bypass and at the sum.
  void stage_in_lanes(size_t i, const cqil_phase& phase) {
    const int n_crews = std::min(phase.n_lanes, team_size_);
    const int crew_index = member_ % n_crews;
    Crew crew = all_;
    if (n_crews > 1) {
      crew.member = member_ / n_crews;
      crew.size = (team_size_ - crew_index + n_crews - 1) / n_crews;
      crew.barrier = session_.crews[static_cast<size_t>(n_crews - 2)][static_cast<size_t>(crew_index)].get();
    }
    auto lane_at = [&](int lane, size_t step) { return Lanes{phase.first_layer, lane, 1, claimed(i + step, lane)}; };

    for (int lane = crew_index; lane < phase.n_lanes; lane += n_crews) {
      timed(i, lane, [&] { pass_.qkv(crew, lane_at(lane, 0)); });
      crew.wait();
      timed(i + 1, lane, [&] { pass_.attention(crew, lane_at(lane, 1)); });
      crew.wait();
      timed(i + 2, lane, [&] { pass_.attention_out(crew, lane_at(lane, 2)); });
      crew.wait();
    }
    if (session_.program.bypass > 0) all_.wait();
    for (int lane = crew_index; lane < phase.n_lanes; lane += n_crews) {
      timed(i + 3, lane, [&] { pass_.gate_up(crew, lane_at(lane, 3)); });
      crew.wait();
      timed(i + 4, lane, [&] { pass_.down_apart(crew, lane_at(lane, 4)); });
    }
    all_.wait();
    if (pass_.request.output == CQIL_OUTPUT_TRACE) pass_.record(all_, phase.first_layer, phase.n_lanes);
    timed(i + 4, kAllLanes, [&] { pass_.join(all_, phase.n_lanes); });
  }

  // Does this member's part of a phase; the clock is read only where a timeline is wanted.
  template <class Work>
  void timed(size_t phase, int lane, Work work) {
    if (!spans_.next) return work();
    const int64_t begin = nanoseconds();
    work();
    *spans_.next++ = {static_cast<int32_t>(phase), member_, lane, begin - spans_.began, nanoseconds() - spans_.began};
  }

  Claim* claimed(size_t phase, int lane) const {
    const size_t row = phase * static_cast<size_t>(session_.program.max_lanes) + static_cast<size_t>(lane);
    return &session_.claimed[row * static_cast<size_t>(team_size_)];
  }

  const Pass& pass_;
  Spans spans_;
  CpuSession& session_;
  const int team_size_;
  const int member_;
  const Crew all_;
};

}  // namespace

cqil_status forward(CpuSession& session, const cqil_forward& request) {
  const int64_t began = request.spans ? nanoseconds() : 0;
  const Pass pass(session, request);
  const size_t counters = session.phases.size() * static_cast<size_t>(session.program.max_lanes * session.model.team.size());
  for (size_t i = 0; i < counters; i++) session.claimed[i].taken.store(0, std::memory_order_relaxed);
  session.cancelled = false;
  const int spans_each = request.n_spans / session.model.team.size();
  session.model.team.run([&](int member) {
    Walk(pass, member, {request.spans ? request.spans + member * spans_each : nullptr, began}).run();
  });
  return session.cancelled ? CQIL_ABORTED : CQIL_OK;
}

}  // namespace cqil
