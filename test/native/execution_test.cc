// How often threads meet on their way through a token, which the latency model in lib/analysis/latency/work.ts counts
// too.
#include "check.h"
#include "core/schedule.h"
#include "cpu/workspace.h"
#include "small_model.h"

using namespace cqil;

namespace {

// A session of the backend's own table, of a model of 6 layers, and one token for it.
class OneSession {
 public:
  OneSession(const Plan& plan, int32_t threads, int64_t alone_bytes)
      : model_(check::small_model(threads, "F32", CQIL_ACTIVATIONS_F32, alone_bytes)),
        program_(compile_program(plan, model_->shape().n_layers)),
        sizes_(sizes_of(model_->view(), model_->options(), CQIL_F32)) {
    logits.resize(static_cast<size_t>(model_->shape().vocab_size));
    const cqil_program view = program_.view();
    const cqil_cache_options options = {8, CQIL_F32};
    cqil_error error = {};
    const cqil_backend& backend = model_->backend();
    check_status(backend.workspace_create(model_->backend_model(), &view, &workspace_, &error), error);
    check_status(backend.cache_create(workspace_, &options, &cache_, &error), error);
  }
  ~OneSession() {
    model_->backend().cache_destroy(cache_);
    model_->backend().workspace_destroy(workspace_);
  }

  const CpuWorkspace& cpu() const { return *reinterpret_cast<CpuWorkspace*>(workspace_); }
  // Fills the logits, unless the call is cancelled. way.threads: 0 for all.
  cqil_status decode(int32_t position, Way way, cqil_forward call = {}) {
    const int32_t id = 3, all = model_->team_size();
    way.threads = way.threads == 0 ? all : std::min(way.threads, all);
    Schedule schedule;
    place(program_, way, sizes_, {position, 1, false}, schedule);
    call.schedule = schedule.view();
    cqil_row row = {};
    row.cache = cache_;
    row.ids = &id;
    row.n_ids = 1;
    row.position = position;
    row.output = CQIL_OUTPUT_LOGITS;
    row.result = logits.data();
    call.rows = &row;
    call.n_rows = 1;
    cqil_error error = {};
    return model_->backend().forward(workspace_, &call, &error);
  }

  std::vector<float> logits;

 private:
  const std::shared_ptr<Model> model_;
  const Program program_;
  const Sizes sizes_;
  cqil_backend_workspace* workspace_ = nullptr;
  cqil_backend_cache* cache_ = nullptr;
};

struct Meetings {
  uint32_t team = 0;
  uint32_t crews = 0;  // of the crew of each way to split the team that meets most, summed over the ways
};

// During one decoded token with logits, the second.
Meetings meetings(const Plan& plan, int32_t threads, cqil_execution execution, int64_t alone_bytes) {
  OneSession session(plan, threads, alone_bytes);
  auto count = [&] {
    Meetings found;
    found.team = session.cpu().all.rounds();
    for (const auto& split : session.cpu().crews) {
      uint32_t most = 0;
      for (const auto& crew : split) most = std::max(most, crew->rounds());
      found.crews += most;
    }
    return found;
  };
  CHECK(session.decode(0, {execution, 0}) == CQIL_OK, "the first token");
  const Meetings before = count();
  CHECK(session.decode(1, {execution, 0}) == CQIL_OK, "the second token");
  const Meetings after = count();
  return {after.team - before.team, after.crews - before.crews};
}

// test/latency_work.test.ts has the same numbers.
void test_meetings() {
  int64_t alone_bytes = 0;
  auto expect = [&](const char* name, const Plan& plan, int32_t threads, cqil_execution execution, uint32_t team,
                    uint32_t crews) {
    const Meetings found = meetings(plan, threads, execution, alone_bytes);
    CHECK(found.team == team && found.crews == crews,
          std::string(name) + ": " + std::to_string(found.team) + " and " + std::to_string(found.crews));
  };
  Plan mixed;
  mixed.groups = {{1, 3}, {4, 2}};
  expect("sequential", Plan{}, 2, CQIL_WIDE, 32, 0);
  expect("one thread", mixed, 1, CQIL_LANES, 0, 0);
  expect("wide", mixed, 2, CQIL_WIDE, 17, 0);
  expect("lanes", mixed, 2, CQIL_LANES, 11, 0);
  expect("lanes of crews", mixed, 4, CQIL_LANES, 11, 8);
  mixed.bypass = 1;
  expect("lanes with bypass", mixed, 2, CQIL_LANES, 13, 0);

  // A layer's matrices, and its keys and values of two positions.
  mixed.bypass = 0;
  const int64_t layer = 4 * (2 * 72 * 72 + 2 * 36 * 72 + 3 * 123 * 72) + 2 * 2 * 2 * 18 * 4;
  alone_bytes = layer;
  expect("alone", Plan{}, 2, CQIL_WIDE, 0, 0);
  expect("groups together", mixed, 2, CQIL_WIDE, 12, 0);
  expect("groups in lanes", mixed, 2, CQIL_LANES, 6, 0);
  expect("crews of one", mixed, 4, CQIL_LANES, 6, 0);
  alone_bytes = 3 * layer;
  expect("groups alone", mixed, 2, CQIL_WIDE, 0, 0);
  alone_bytes = layer - 1;
  expect("too large to be alone", Plan{}, 2, CQIL_WIDE, 32, 0);
  mixed.bypass = 1;
  expect("too large for crews of one", mixed, 4, CQIL_LANES, 13, 8);
}

// A call that is cancelled ends before the next stage, whoever computes it, and the next call is as if it had not been.
void test_cancelled() {
  struct Patience {
    int asked = 0, until;
    static int32_t ended(const void* self) {
      auto* patience = static_cast<Patience*>(const_cast<void*>(self));
      return ++patience->asked > patience->until;
    }
  };
  Plan mixed;
  mixed.groups = {{1, 3}, {4, 2}};
  for (int64_t alone_bytes : {0, 200000, 1 << 30})
    for (cqil_execution execution : {CQIL_WIDE, CQIL_LANES}) {
      OneSession session(mixed, 3, alone_bytes);
      std::vector<float> expected;
      const int questions = 4;  // after the embedding and after each of the stages
      bool right = true;
      for (int repeat = 0; repeat < 50; repeat++)
        for (int until = questions; until >= 0; until--) {
          Patience patience;
          patience.until = until;
          cqil_forward call = {};
          call.cancelled = Patience::ended;
          call.cancel_flag = &patience;
          const cqil_status status = session.decode(0, {execution, 0}, call);
          right = right && status == (until < questions ? CQIL_ABORTED : CQIL_OK) &&
                  patience.asked == std::min(until + 1, questions);
          if (until < questions) continue;
          if (expected.empty()) expected = session.logits;
          right = right && check::same_bits(session.logits, expected);
        }
      CHECK(right, "cancelled between stages, alone up to " + std::to_string(alone_bytes) +
                       (execution == CQIL_WIDE ? ", wide" : ", lanes"));
    }
}

// Fewer threads than the model has compute the same bits. So does one thread that loses its patience at once and goes
// on alone.
void test_fewer_threads() {
  Plan mixed;
  mixed.groups = {{1, 3}, {4, 2}};
  for (mixed.bypass = 0; mixed.bypass < 2; mixed.bypass++)
    for (int64_t alone_bytes : {0, 200000}) {
      OneSession one(mixed, 1, alone_bytes), many(mixed, 4, alone_bytes);
      for (int32_t position = 0; position < 3; position++) {
        CHECK(one.decode(position, {CQIL_WIDE, 0}) == CQIL_OK, "one thread");
        for (cqil_execution execution : {CQIL_WIDE, CQIL_LANES})
          for (int32_t threads = 0; threads <= 5; threads++)
            for (int64_t patience : {0, 1}) {
              cqil_forward call = {};
              call.patience_ns = patience;
              const uint32_t met = many.cpu().all.rounds();
              const cqil_status status = many.decode(position, {execution, threads}, call);
              CHECK(status == CQIL_OK && check::same_bits(many.logits, one.logits),
                    std::to_string(threads) + " of 4 threads, " + (patience ? "impatient" : "patient") +
                        (execution == CQIL_WIDE ? ", wide" : ", lanes"));
              if (threads == 1) CHECK(many.cpu().all.rounds() == met, "one thread meets nobody");
              if (threads != 1 && patience && alone_bytes == 0)
                CHECK(many.cpu().all.rounds() == met + 1, "threads part after the embedding");
            }
      }
    }
}

}  // namespace

int main() {
  test_meetings();
  test_cancelled();
  test_fewer_threads();
  return check::report("execution");
}
