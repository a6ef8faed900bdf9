// What ranks hold: every head and every hidden value of every layer once, or the same on all ranks; and their
// schedules, which exchange what the formula adds up.
#include "core/shares.h"

#include <algorithm>
#include <string>

#include "check.h"
#include "core/schedule.h"

using namespace cqil;

namespace {

// LLaMA-2 7B's numbers.
cqil_shape shape_7b() {
  cqil_shape shape = {};
  shape.dim = 4096, shape.hidden_dim = 11008, shape.head_dim = 128;
  shape.n_heads = shape.n_kv_heads = 32;
  shape.n_layers = 32, shape.vocab_size = 32000;
  return shape;
}

// The published P2 groups of that model.
Plan plan_7b(int32_t bypass) {
  Plan plan;
  for (int32_t first = 12; first < 30; first += 2) plan.groups.push_back({first, 2});
  plan.bypass = bypass;
  return plan;
}

const char* name_of(Split split) {
  return split == Split::kLanes ? "lanes" : split == Split::kHybrid ? "hybrid" : "tensor";
}

// What is wrong with how a part of a layer is held; empty if nothing is.
std::string fault(const cqil_ranks& ranks, int32_t layer, Part part) {
  const bool attention = part == Part::kAttention;
  const int32_t whole = attention ? ranks.whole.n_kv_heads : ranks.whole.n_hidden;
  int32_t end = 0, everywhere = 0;
  for (int32_t rank = 0; rank < ranks.n_ranks; rank++) {
    const cqil_share& share = ranks.shares[rank * ranks.n_layers + layer];
    const int32_t first = attention ? share.first_kv_head : share.first_hidden;
    const int32_t n = attention ? share.n_kv_heads : share.n_hidden;
    if (n < 0 || first < 0 || first + n > whole) return "a share outside its layer";
    everywhere += n == whole;
    if (n == 0 || (first == 0 && end == whole)) continue;  // another rank that holds all of it
    if (first != end) return "a gap, or a part twice";
    end += n;
  }
  if (end != whole) return "a part that nobody holds";
  if (everywhere > 1 && everywhere < ranks.n_ranks) return "whole on some ranks";
  const Held expected = everywhere == ranks.n_ranks ? Held::kEverywhere
                        : everywhere == 1           ? Held::kOnOne
                                                    : Held::kInSlices;
  return held(ranks, layer, part) == expected ? "" : "held otherwise than it says";
}

void test_shares() {
  int n = 0, wrong = 0;
  for (int32_t n_kv_heads : {1, 3, 4, 8})
    for (int32_t hidden_unit : {32, 256})
      for (bool cut_attention : {true, false})
        for (const std::vector<int32_t>& ratios : std::vector<std::vector<int32_t>>{{1},
                                                                                    {1, 1},
                                                                                    {3, 1},
                                                                                    {1, 1, 1},
                                                                                    {1, 2, 1, 4},
                                                                                    {1, 1, 1, 1, 1},
                                                                                    {65536, 1, 1, 1, 1, 1},
                                                                                    {1, 1, 1, 1, 1, 1, 1},
                                                                                    {1, 1, 1, 1, 1, 1, 1, 1}})
          for (Split split : {Split::kLanes, Split::kHybrid, Split::kTensor})
            for (const std::vector<Group>& groups :
                 std::vector<std::vector<Group>>{{}, {{1, 2}, {4, 3}}, {{0, 8}}, {{2, 5}}}) {
              cqil_shape shape = shape_7b();
              shape.n_layers = 8, shape.n_kv_heads = n_kv_heads, shape.hidden_dim = 1000, shape.vocab_size = 333;
              Plan plan;
              plan.groups = groups;
              const Shares shares(compile_program(plan, 8), shape, {cut_attention, hidden_unit}, split, ratios);
              const cqil_ranks ranks = shares.view(0);
              std::string found;
              for (int32_t layer = 0; layer < 8 && found.empty(); layer++) {
                found = fault(ranks, layer, Part::kAttention);
                if (found.empty()) found = fault(ranks, layer, Part::kMlp);
                const bool cut = cut_attention && n_kv_heads >= ranks.n_ranks;
                if (split == Split::kTensor && !cut && held(ranks, layer, Part::kAttention) != Held::kEverywhere)
                  found = "attention that cannot be cut";
              }
              if (ranks.vocabulary[0] != 0 || ranks.vocabulary[ranks.n_ranks] != 333) found = "a vocabulary cut short";
              for (int32_t rank = 0; rank < ranks.n_ranks; rank++) {
                if (ranks.vocabulary[rank] > ranks.vocabulary[rank + 1]) found = "logits twice";
                if (ranks.vocabulary[rank] % CQIL_PREPARED_ROWS != 0) found = "rows that are not prepared together";
              }
              n++;
              if (!found.empty() && wrong++ < 5) CHECK(found == "", std::string(name_of(split)) + " on ranks");
            }
  CHECK(wrong == 0 && n == 1728, "every part of every layer once");
}

bool exchanges(const cqil_step& step) { return step.op == CQIL_OP_SHARE_ATTENTION || step.op == CQIL_OP_REDUCE; }

// All ranks make the same exchanges, before and after which all of a rank's threads meet. A rank computes only what it
// holds.
void test_schedules() {
  struct Case {
    Split split;
    int32_t bypass;
    int exchanges;
  };
  // The plan has 9 groups, and 14 layers outside them.
  for (const Case& expected : {Case{Split::kLanes, 0, 9}, Case{Split::kLanes, 1, 18}, Case{Split::kHybrid, 0, 37},
                               Case{Split::kHybrid, 1, 46}, Case{Split::kTensor, 0, 46}, Case{Split::kTensor, 2, 46}})
    for (const std::vector<int32_t>& ratios : {std::vector<int32_t>{1, 1}, std::vector<int32_t>{3, 2}})
      for (cqil_execution execution : {CQIL_WIDE, CQIL_LANES})
        for (bool post_norms : {false, true}) {
          const std::string what = std::string(name_of(expected.split)) + " D" + std::to_string(expected.bypass);
          const Program program = compile_program(plan_7b(expected.bypass), 32);
          const Shares shares(program, shape_7b(), {true, 32}, expected.split, ratios);
          Sizes sizes = {};
          sizes.layers.assign(32, 1);
          sizes.windows.assign(32, 0);
          sizes.alone = 1 << 20;
          sizes.post_norms = post_norms;
          std::vector<std::pair<int32_t, int32_t>> first;
          for (int32_t rank = 0; rank < 2; rank++) {
            const cqil_ranks ranks = shares.view(rank);
            Schedule schedule;
            place(program, {execution, 2}, sizes, {0, 1, false}, schedule, &ranks);
            std::vector<std::pair<int32_t, int32_t>> found;
            bool met = true, holding = true;
            for (size_t i = 0; i < schedule.steps.size(); i++) {
              const cqil_step& step = schedule.steps[i];
              const bool mlp = step.op == CQIL_OP_GATE_UP || step.op == CQIL_OP_DOWN_APART || step.op == CQIL_OP_DOWN;
              const bool own = mlp || step.op == CQIL_OP_QKV || step.op == CQIL_OP_ATTENTION;
              for (int32_t lane = step.first_lane; own && lane < step.first_lane + step.n_lanes; lane++)
                holding = holding && holds(ranks, rank, step.first_layer + lane, mlp ? Part::kMlp : Part::kAttention);
              if (!exchanges(step)) continue;
              found.push_back({step.op, step.phase});
              met = met && step.then == CQIL_EVERYBODY && schedule.steps[i - 1].then == CQIL_EVERYBODY &&
                    step.n_crews == 1 && !step.alone;
            }
            CHECK(static_cast<int>(found.size()) == expected.exchanges, what + ": exchanges of a token");
            CHECK(met, what + ": all threads meet before and after an exchange");
            CHECK(holding, what + ": a rank computes what it holds");
            if (rank == 0) first = found;
            CHECK(found == first, what + ": the same exchanges on all ranks");
          }
        }
}

void test_cuts() {
  cqil_layer layer = {};
  cqil_weights weights = {};
  weights.shape = shape_7b();
  weights.shape.n_layers = 1;
  weights.layers = &layer;
  layer.wo.dtype = layer.w_down.dtype = CQIL_F16;
  CHECK(cuts_of(weights).attention && cuts_of(weights).hidden_unit == 32, "floats");
  layer.wo.dtype = layer.w_down.dtype = CQIL_Q4_K;
  CHECK(!cuts_of(weights).attention, "a head of 128 columns is half a block of 256");
  CHECK(cuts_of(weights).hidden_unit == 256, "blocks of 256");
  weights.shape.n_kv_heads = 8;
  CHECK(cuts_of(weights).attention, "four heads that share keys are two blocks");
}

void test_wrong() {
  const Program program = compile_program(plan_7b(0), 32);
  auto make = [&](const std::vector<int32_t>& ratios) {
    Shares(program, shape_7b(), {true, 32}, Split::kLanes, ratios);
  };
  check::throws("INVALID_ARGUMENT", [&] { make({}); }, "no rank");
  check::throws("INVALID_ARGUMENT", [&] { make({1, 1, 1, 1, 1, 1, 1, 1, 1}); }, "nine ranks");
  check::throws("INVALID_ARGUMENT", [&] { make({1, 0}); }, "a rank of nothing");
  const Shares lanes(program, shape_7b(), {true, 32}, Split::kLanes, {1, 1});
  const Shares tensor(program, shape_7b(), {true, 32}, Split::kTensor, {1, 1});
  const Program other = compile_program({}, 32);
  lanes.expect_serves(compile_program(plan_7b(1), 32));
  check::throws("INVALID_PLAN", [&] { lanes.expect_serves(other); }, "lanes of another plan");
  tensor.expect_serves(other);
}

}  // namespace

int main() {
  test_shares();
  test_schedules();
  test_cuts();
  test_wrong();
  return check::report("shares");
}
