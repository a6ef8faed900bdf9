#include "forward.h"

#include <algorithm>
#include <chrono>

#include "../core/dtype.h"
#include "phases.h"

namespace cqil {
namespace {

constexpr int kPhasesPerStage = 5;
constexpr int kAllLanes = -1;
// After layers that one thread has computed, the others sleep: to wake them for the output projection pays from so many
// times alone_bytes on (0.04 ms of one thread's reading, on Zen 5).
constexpr int64_t kAloneHead = 4;

int64_t nanoseconds() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

// One member's way through the program.
class Walk {
 public:
  Walk(const Pass& pass, int members, int member, int64_t began, cqil_span* spans)
      : pass_(pass),
        began_(began),
        spans_(spans),
        session_(pass.session),
        team_size_(members),
        member_(member),
        all_{member, team_size_, &session_.all, &session_.scratch[static_cast<size_t>(member)]},
        one_{0, 1, nullptr, all_.scratch} {}

  // Whether member 0 does everything.
  bool all_alone() const { return alone_until(0) == session_.phases.size(); }

  void run() {
    const size_t n = session_.phases.size();
    for (size_t i = 0; i < n && !stops_at(i);) {
      const bool left = session_.alone_from.load(std::memory_order_relaxed) <= i;
      if (left && member_ != 0) return;
      const size_t end = left ? n : alone_until(i);
      if (end == i) {
        i = step(all_, i);
        continue;
      }
      if (member_ == 0)
        while (i < end && !stops_at(i)) i = step(one_, i);
      i = end;
      if (i < n) all_.wait();
    }
  }

 private:
  // The phase after a stage, or after what comes before or after all stages.
  size_t after(size_t i) const { return i + (session_.phases[i].kind == CQIL_QKV ? kPhasesPerStage : 1); }

  // By number: a member that comes late to a phase may be told already of one further on, where the others wait for it.
  bool stops_at(size_t i) const { return session_.stop_at.load(std::memory_order_relaxed) <= i; }

  // Does one of these with a crew, which meets at its end, and returns what is next.
  size_t step(const Crew& crew, size_t i) {
    const cqil_phase& phase = session_.phases[i];
    if (phase.kind == CQIL_HEAD) {
      timed(i, kAllLanes, [&] { pass_.head(crew, claimed(i, 0)); });
      return after(i);
    }
    if (phase.kind == CQIL_EMBED) timed(i, kAllLanes, [&] { pass_.embed(crew); });
    else if (in_lanes(phase) && &crew == &all_) stage_in_lanes(i, phase);
    else stage_wide(crew, i, phase);
    if (crew.member == 0) {
      if (cqil_cancelled(&pass_.request)) session_.stop_at = after(i);
      if (crew.size > 1 && pass_.request.patience_ns > 0 && nanoseconds() - began_ > pass_.request.patience_ns)
        session_.alone_from = after(i);
    }
    crew.wait();
    return after(i);
  }

  // The end of the phases from `first` on that are done sooner by one member than by all, who meet after each of them.
  size_t alone_until(size_t first) const {
    size_t i = first;
    while (i < session_.phases.size() && alone(session_.phases[i], first == 0)) i = after(i);
    return i;
  }

  bool alone(const cqil_phase& phase, bool all_before) const {
    if (team_size_ == 1 || pass_.request.n_ids > 1 || session_.model.alone_bytes == 0) return false;
    if (phase.kind == CQIL_EMBED) return true;
    if (phase.kind == CQIL_HEAD)
      return all_before && bytes_of(session_.model.weights.output) <= kAloneHead * session_.model.alone_bytes;
    return !in_lanes(phase) && small(phase.first_layer, phase.n_lanes);
  }

  bool in_lanes(const cqil_phase& phase) const { return phase.n_lanes > 1 && pass_.request.execution == CQIL_LANES; }

  // Whether a token reads no more of so many layers than one member should read alone.
  bool small(int32_t first_layer, int32_t n_layers) const {
    const cqil_shape& shape = session_.model.weights.shape;
    const int64_t window = shape.sliding_window > 0 ? shape.sliding_window : session_.context;
    const int64_t positions = std::min<int64_t>(pass_.request.position + 1, window);
    int64_t bytes = n_layers * positions * 2 * shape.n_kv_heads * session_.kv_stride;
    for (int32_t i = first_layer; i < first_layer + n_layers; i++) {
      const cqil_layer& l = session_.model.weights.layers[i];
      for (const cqil_tensor* matrix : {&l.wq, &l.wk, &l.wv, &l.wo, &l.w_gate, &l.w_up, &l.w_down})
        bytes += bytes_of(*matrix);
    }
    return pass_.request.n_ids == 1 && bytes <= session_.model.alone_bytes;
  }

  static int64_t bytes_of(const cqil_tensor& matrix) { return matrix.rows * row_bytes(matrix.dtype, matrix.cols); }

  // Every phase takes all lanes, shared by the crew.
  void stage_wide(const Crew& crew, size_t i, const cqil_phase& phase) {
    auto lanes = [&](size_t step) { return Lanes{phase.first_layer, 0, phase.n_lanes, claimed(i + step, 0)}; };
    timed(i, kAllLanes, [&] { pass_.qkv(crew, lanes(0)); });
    crew.wait();
    timed(i + 1, kAllLanes, [&] { pass_.attention(crew, lanes(1)); });
    crew.wait();
    timed(i + 2, kAllLanes, [&] { pass_.attention_out(crew, lanes(2)); });
    crew.wait();
    timed(i + 3, kAllLanes, [&] { pass_.gate_up(crew, lanes(3)); });
    crew.wait();
    if (pass_.request.output != CQIL_OUTPUT_TRACE) return timed(i + 4, kAllLanes, [&] { pass_.down(crew, lanes(4)); });
    // The same sum to the same bits, with every m_j kept for a while.
    pass_.down_apart(crew, lanes(4));
    crew.wait();
    pass_.record(crew, phase.first_layer, phase.n_lanes);
    pass_.join(crew, phase.n_lanes);
  }

  // Every lane has a crew of its own, of one where lanes are small; crews meet only where the formula joins lanes: at a
  // bypass and at the sum.
  void stage_in_lanes(size_t i, const cqil_phase& phase) {
    const int n_crews = std::min(phase.n_lanes, team_size_);
    const int crew_index = member_ % n_crews;
    const bool by_one = small(phase.first_layer, 1);
    Crew crew = all_;
    if (n_crews > 1) {
      crew.member = member_ / n_crews;
      crew.size = by_one ? 1 : (team_size_ - crew_index + n_crews - 1) / n_crews;
      crew.barrier = session_.crews[static_cast<size_t>(n_crews - 2)][static_cast<size_t>(crew_index)].get();
    }
    const int first_lane = crew.member < crew.size ? crew_index : phase.n_lanes;
    auto lane_at = [&](int lane, size_t step) { return Lanes{phase.first_layer, lane, 1, claimed(i + step, lane)}; };

    for (int lane = first_lane; lane < phase.n_lanes; lane += n_crews) {
      timed(i, lane, [&] { pass_.qkv(crew, lane_at(lane, 0)); });
      crew.wait();
      timed(i + 1, lane, [&] { pass_.attention(crew, lane_at(lane, 1)); });
      crew.wait();
      timed(i + 2, lane, [&] { pass_.attention_out(crew, lane_at(lane, 2)); });
      crew.wait();
    }
    if (session_.program.bypass > 0) all_.wait();
    for (int lane = first_lane; lane < phase.n_lanes; lane += n_crews) {
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
    if (!spans_) return work();
    const int64_t begin = nanoseconds();
    work();
    *spans_++ = {static_cast<int32_t>(phase), member_, lane, begin - began_, nanoseconds() - began_};
  }

  Claim* claimed(size_t phase, int lane) const {
    const size_t row = phase * static_cast<size_t>(session_.program.max_lanes) + static_cast<size_t>(lane);
    return &session_.claimed[row * static_cast<size_t>(team_size_)];
  }

  const Pass& pass_;
  const int64_t began_;  // nanoseconds() when the call did
  cqil_span* spans_;     // where this member notes next when it computed what; null: not wanted
  CpuSession& session_;
  const int team_size_;  // members of this forward
  const int member_;
  const Crew all_, one_;  // everybody, and this member by itself
};

}  // namespace

cqil_status forward(CpuSession& session, const cqil_forward& request) {
  const int64_t began = nanoseconds();
  const Pass pass(session, request);
  Team& team = session.model.team;
  const int members = request.threads > 0 ? std::min(request.threads, team.size()) : team.size();
  session.share_among(members);
  session.stop_at = session.alone_from = CpuSession::kNever;
  const int spans_each = request.n_spans / team.size();
  auto walk = [&](int member) {
    return Walk(pass, members, member, began, request.spans ? request.spans + member * spans_each : nullptr);
  };
  // Nobody is woken who has nothing to do.
  team.run(walk(0).all_alone() ? 1 : members, [&](int member) { walk(member).run(); });
  return session.stop_at == CpuSession::kNever ? CQIL_OK : CQIL_ABORTED;
}

}  // namespace cqil
