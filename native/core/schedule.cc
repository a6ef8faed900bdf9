#include "schedule.h"

#include <algorithm>

#include "dtype.h"
#include "held.h"

namespace cqil {
namespace {

// After layers that one thread has computed, the others sleep. To wake them for the output projection pays from this
// many times Sizes::alone on: 0.04 ms of one thread's reading, on Zen 5.
constexpr int64_t kAloneHead = 4;

int64_t bytes_of(const cqil_tensor& matrix) { return matrix.rows * row_bytes(matrix.dtype, matrix.cols); }

// Who computes a step, see cqil_step.
struct Who {
  int32_t n_crews;
  int32_t crew;
  bool alone;
};

constexpr Who kAll = {1, 0, false}, kOne = {1, 0, true};

class Placing {
 public:
  Placing(const Program& program, const Way& way, const Sizes& sizes, const Extent& extent, Schedule& schedule,
          const cqil_ranks* ranks)
      : program_(program), way_(way), sizes_(sizes), extent_(extent), schedule_(schedule), ranks_(ranks) {
    schedule_.steps.clear();
    schedule_.threads = way.threads;
  }

  void run() {
    const int32_t n = static_cast<int32_t>(program_.phases.size());
    for (int32_t i = 0; i < n;) {
      const cqil_phase& phase = program_.phases[static_cast<size_t>(i)];
      switch (phase.kind) {
        case CQIL_EMBED:
          begin(may_be_alone());
          add(CQIL_OP_EMBED, i++, all_lanes(phase), who_, CQIL_EVERYBODY);
          end_stage();
          continue;
        case CQIL_HEAD:
          begin(may_be_alone() && all_alone_ && sizes_.head <= kAloneHead * sizes_.alone);
          add(CQIL_OP_HEAD, i++, all_lanes(phase), who_, CQIL_NOBODY);
          continue;
        default:
          stage(i, phase);
          while (i < n && program_.phases[static_cast<size_t>(i)].stage == phase.stage) i++;
      }
    }
  }

 private:
  struct Range {
    int32_t first_layer, first, n;
  };
  static Range all_lanes(const cqil_phase& phase) { return {phase.first_layer, 0, phase.n_lanes}; }

  bool may_be_alone() const { return way_.threads > 1 && extent_.n_ids == 1 && sizes_.alone > 0; }

  // Whether a token reads no more of these layers than one thread should read by itself.
  bool small(int32_t first_layer, int32_t n_layers) const {
    if (!may_be_alone()) return false;
    int64_t bytes = 0;
    for (int32_t i = first_layer; i < first_layer + n_layers; i++) {
      const int64_t window = sizes_.windows[static_cast<size_t>(i)];
      const int64_t positions = std::min<int64_t>(extent_.position + 1, window > 0 ? window : int64_t{1} << 40);
      bytes += sizes_.layers[static_cast<size_t>(i)] + positions * sizes_.position;
    }
    return bytes <= sizes_.alone;
  }

  // What comes next is computed by one thread, or by all.
  void begin(bool alone) {
    // The others have waited while one thread computed.
    if (!alone && was_alone_ && !schedule_.steps.empty()) schedule_.steps.back().then = CQIL_EVERYBODY;
    who_ = alone ? kOne : kAll;
    was_alone_ = alone;
    all_alone_ = all_alone_ && alone;
  }

  void add(cqil_op op, int32_t phase, const Range& lanes, const Who& who, cqil_meeting then, int32_t waits_for = 0) {
    if (who.alone && who.n_crews == 1) then = CQIL_NOBODY;
    schedule_.steps.push_back({op, phase, lanes.first_layer, lanes.first, lanes.n, who.n_crews, who.crew,
                               who.alone ? 1 : 0, waits_for, then, 0});
  }

  void end_stage() { schedule_.steps.back().ends_stage = 1; }

  // The lanes of a stage of which this rank holds a part, whole or a slice of it. They are consecutive.
  Range own(const cqil_phase& phase, Part part) const {
    if (!ranks_) return all_lanes(phase);
    Range lanes = {phase.first_layer, 0, 0};
    for (int32_t lane = 0; lane < phase.n_lanes; lane++) {
      if (!holds(*ranks_, ranks_->rank, phase.first_layer + lane, part)) continue;
      if (lanes.n++ == 0) lanes.first = lane;
    }
    return lanes;
  }

  // Which outputs of a stage ranks exchange, because not every rank computes them all.
  struct Exchanged {
    bool attention, mlp;
    bool late;  // a_j is exchanged with m_j, see reduces_attention
    bool any() const { return attention || mlp; }
  };
  Exchanged exchanged(const cqil_phase& phase) const {
    Exchanged what = {false, false, false};
    if (!ranks_) return what;
    for (int32_t layer = phase.first_layer; layer < phase.first_layer + phase.n_lanes; layer++) {
      what.attention = what.attention || held(*ranks_, layer, Part::kAttention) != Held::kEverywhere;
      what.mlp = what.mlp || held(*ranks_, layer, Part::kMlp) != Held::kEverywhere;
    }
    what.late = reduces_attention(*ranks_, phase.first_layer, phase.n_lanes, program_.bypass);
    return what;
  }

  void stage(int32_t i, const cqil_phase& phase) {
    const Exchanged what = exchanged(phase);
    const bool in_lanes =
        phase.n_lanes > 1 && way_.execution == CQIL_LANES && own(phase, Part::kAttention).n == own(phase, Part::kMlp).n;
    begin(!in_lanes && !what.any() && small(phase.first_layer, phase.n_lanes));
    if (in_lanes) attention_in_lanes(i, phase, what);
    else attention_wide(i, phase, what);
    if (what.attention && !what.late) {
      add(CQIL_OP_SHARE_ATTENTION, i + 2, all_lanes(phase), who_, CQIL_EVERYBODY);
      if (sizes_.post_norms) add(CQIL_OP_ATTENTION_POST_NORM, i + 2, all_lanes(phase), who_, CQIL_EVERYBODY);
    }
    if (in_lanes) mlp_in_lanes(i, phase, what);
    else mlp_wide(i, phase, what);
    end_stage();
  }

  // Every phase takes all lanes.
  void attention_wide(int32_t i, const cqil_phase& phase, const Exchanged& what) {
    const Range lanes = own(phase, Part::kAttention);
    if (lanes.n == 0) return;
    add(CQIL_OP_QKV, i, lanes, who_, CQIL_EVERYBODY);
    add(CQIL_OP_ATTENTION, i + 1, lanes, who_, CQIL_EVERYBODY);
    add(CQIL_OP_ATTENTION_OUT, i + 2, lanes, who_, CQIL_EVERYBODY);
    if (norms_early(what)) add(CQIL_OP_ATTENTION_POST_NORM, i + 2, lanes, who_, CQIL_EVERYBODY);
  }

  void mlp_wide(int32_t i, const cqil_phase& phase, const Exchanged& what) {
    const Range lanes = own(phase, Part::kMlp);
    if (lanes.n > 0) add(CQIL_OP_GATE_UP, i + 3, lanes, who_, CQIL_EVERYBODY);
    if (!extent_.traced && !sizes_.post_norms && !what.any())
      return add(CQIL_OP_DOWN, i + 4, lanes, who_, CQIL_EVERYBODY);
    // This gives the sum of CQIL_OP_DOWN, to the same bits, and keeps every m_j for a while.
    if (lanes.n > 0) add(CQIL_OP_DOWN_APART, i + 4, lanes, who_, CQIL_EVERYBODY);
    join(i + 4, phase, what);
  }

  // Every lane has a crew of its own, of one thread where lanes are small. Crews meet only where the formula joins
  // lanes: at a bypass and at the sum.
  template <class Work>
  void for_lanes(const cqil_phase& phase, const Range& lanes, Work work) {
    if (lanes.n == 0) return;
    // A device has a stream for each lane.
    const int32_t n_crews = way_.threads > 0 ? std::min(lanes.n, way_.threads) : lanes.n;
    const bool by_one = n_crews > 1 && small(phase.first_layer, 1);
    for (int32_t crew = 0; crew < n_crews; crew++)
      for (int32_t lane = crew; lane < lanes.n; lane += n_crews)
        work(Range{phase.first_layer, lanes.first + lane, 1}, Who{n_crews, crew, by_one});
  }

  void attention_in_lanes(int32_t i, const cqil_phase& phase, const Exchanged& what) {
    const Range lanes = own(phase, Part::kAttention);
    for_lanes(phase, lanes, [&](const Range& lane, const Who& who) {
      add(CQIL_OP_QKV, i, lane, who, CQIL_CREW);
      add(CQIL_OP_ATTENTION, i + 1, lane, who, CQIL_CREW);
      add(CQIL_OP_ATTENTION_OUT, i + 2, lane, who, CQIL_CREW);
      if (norms_early(what)) add(CQIL_OP_ATTENTION_POST_NORM, i + 2, lane, who, CQIL_CREW);
    });
    const bool meet = program_.bypass > 0 || (what.attention && !what.late);
    if (meet && lanes.n > 0) schedule_.steps.back().then = CQIL_EVERYBODY;
  }

  void mlp_in_lanes(int32_t i, const cqil_phase& phase, const Exchanged& what) {
    const Range lanes = own(phase, Part::kMlp);
    const bool apart = sizes_.post_norms && !what.mlp;
    for_lanes(phase, lanes, [&](const Range& lane, const Who& who) {
      const int32_t waits_for = what.attention ? 0 : std::min(program_.bypass, lane.first);
      add(CQIL_OP_GATE_UP, i + 3, lane, who, CQIL_CREW, waits_for);
      add(CQIL_OP_DOWN_APART, i + 4, lane, who, apart ? CQIL_CREW : CQIL_NOBODY);
      if (apart) add(CQIL_OP_MLP_POST_NORM, i + 4, lane, who, CQIL_NOBODY);
    });
    if (lanes.n > 0) schedule_.steps.back().then = CQIL_EVERYBODY;
    join(i + 4, phase, what, apart);
  }

  // Whether the rank that computes a_j applies its post-norm, before a_j is exchanged.
  bool norms_early(const Exchanged& what) const { return sizes_.post_norms && (!what.attention || what.late); }

  void join(int32_t i, const cqil_phase& phase, const Exchanged& what, bool normed = false) {
    const Range lanes = all_lanes(phase);
    if (what.any()) add(CQIL_OP_REDUCE, i, lanes, who_, CQIL_EVERYBODY);
    if (sizes_.post_norms && !normed) add(CQIL_OP_MLP_POST_NORM, i, lanes, who_, CQIL_EVERYBODY);
    // A thread records the part of x that it changes afterwards, so nobody waits between the two.
    if (extent_.traced) add(CQIL_OP_RECORD, i, lanes, who_, CQIL_NOBODY);
    add(CQIL_OP_JOIN, i, lanes, who_, CQIL_EVERYBODY);
  }

  const Program& program_;
  const Way& way_;
  const Sizes& sizes_;
  const Extent& extent_;
  Schedule& schedule_;
  const cqil_ranks* const ranks_;
  Who who_ = kAll;
  bool was_alone_ = false;
  bool all_alone_ = true;
};

}  // namespace

Sizes sizes_of(const cqil_weights& weights, const cqil_model_options& options, cqil_dtype kv_dtype) {
  const cqil_shape& shape = weights.shape;
  Sizes sizes = {};
  for (int32_t i = 0; i < shape.n_layers; i++) {
    const cqil_layer& layer = weights.layers[i];
    int64_t bytes = 0;
    for (const cqil_tensor* matrix :
         {&layer.wq, &layer.wk, &layer.wv, &layer.wo, &layer.w_gate, &layer.w_up, &layer.w_down})
      bytes += bytes_of(*matrix);
    sizes.layers.push_back(bytes);
    sizes.windows.push_back(layer.window);
  }
  sizes.head = bytes_of(weights.output);
  sizes.position = 2 * shape.n_kv_heads * kv_row_bytes(kv_dtype, shape.head_dim);
  sizes.alone = options.alone_bytes;
  sizes.post_norms = weights.layers[0].attention_post_norm.data != nullptr;
  return sizes;
}

Extent extent_of(const std::vector<cqil_row>& rows) {
  Extent extent = {rows[0].position, 0, false};
  for (const cqil_row& row : rows) {
    extent.n_ids += row.n_ids;
    extent.traced = extent.traced || row.output == CQIL_OUTPUT_TRACE;
  }
  return extent;
}

cqil_schedule Schedule::view() const { return {steps.data(), static_cast<int32_t>(steps.size()), threads}; }

void place(const Program& program, const Way& way, const Sizes& sizes, const Extent& extent, Schedule& schedule,
           const cqil_ranks* ranks) {
  Placing(program, way, sizes, extent, schedule, ranks).run();
}

}  // namespace cqil
