// A sequence in progress: a cache, and the workspace that fills it by a compiled plan.
#pragma once
#include <cstdint>
#include <exception>
#include <memory>
#include <optional>
#include <vector>

#include "forward_request.h"
#include "model.h"
#include "program.h"
#include "workspace.h"

namespace cqil {

// When each thread computed what of one forward: spans index the schedule's steps.
struct Timeline {
  std::vector<cqil_span> spans;  // in order of threads, then of time
  Schedule schedule;
};

enum class Execution { kAuto, kWide, kLanes, kPersistent };

class Session;

// A session's part of a forward.
struct Call {
  Session& session;
  const ForwardRequest& request;
  const CancelFlag& cancel;
  // What came of it: what the request's output is, or why there is nothing.
  std::vector<float> result{};
  std::vector<cqil_shortlist> shortlists{};
  std::exception_ptr failure{};
};

class Session {
 public:
  // Throws INVALID_PLAN, INVALID_ARGUMENT, OUT_OF_MEMORY, or BACKEND_UNAVAILABLE for an execution the backend does not
  // have.
  Session(std::shared_ptr<Model> model, const Plan& plan, Execution execution, int32_t context_length,
          cqil_dtype kv_dtype = CQIL_F32);
  ~Session();
  Session(const Session&) = delete;

  // Runs ids at request.position and returns logits [vocab_size] or [ids, vocab_size], scores, a trace, or nothing.
  // Throws INVALID_ARGUMENT, CONTEXT_OVERFLOW, ABORTED, FILE_CHANGED for a mapped file, or NOT_FINITE for logits, or
  // logits that scores are made of, that are NaN or infinite; after an error the positions before request.position are
  // as they were.
  std::vector<float> forward(const ForwardRequest& request);
  // Runs a request of a shortlist: the highest request.count logits after the last id. Throws also
  // INVALID_ARGUMENT for a count outside 1 .. CQIL_MAX_SHORTLIST. cancel: the flag that ends it, if not this session's
  // own.
  cqil_shortlist shortlist(const ForwardRequest& request, const CancelFlag* cancel = nullptr);
  // What forward() does, thrown away, and when each thread computed what. Throws also BACKEND_UNAVAILABLE when the
  // backend keeps no times.
  Timeline timeline(const ForwardRequest& request);
  // Runs calls of different sessions of one model in one forward, or, where their programs differ or their ids are more
  // than CQIL_MAX_BATCH, in several. Each call has its own outcome, with the bits that it has alone where the CPU
  // computes, and one that is cancelled ends with ABORTED once the others have theirs. Does not throw.
  static void run_together(const std::vector<Call*>& calls);
  const Workspace& workspace() const { return *workspace_; }
  // The forward in flight, or the one queued since arm(), ends with ABORTED: at its next stage, or, computed together
  // with others, when they have ended. From any thread.
  void cancel();
  // Forgets an earlier cancel(); called when a forward is queued.
  void arm() { cancel_ = false; }
  const CancelFlag& cancel_flag() const { return cancel_; }
  int32_t context_length() const { return context_length_; }
  // Where forwards of this session may be under way before they are asked for.
  Ahead& ahead() const { return model_->ahead(); }
  uint64_t cache_bytes() const { return cache_bytes_; }
  // The way that kAuto begins with for this program, found in an earlier process, and the way that it takes at present,
  // see ExecutionTuner. Both may be called from any thread.
  void settle(Execution execution, int32_t threads);
  std::optional<Way> settled() const { return workspace_->tuner().settled(); }

 private:
  void check(const ForwardRequest& request) const;
  void expect_finite(const Call& call) const;
  // Takes memory for the result and makes the call a row of a forward. Adds the row's targets to `targets`, which has
  // room for them.
  cqil_row row_of(Call& call, std::vector<int32_t>& targets) const;
  // Tells other ranks of a forward, where there are any, and computes it here.
  static void forward_on_ranks(const PresentForward& present, const cqil_forward& forward);
  // Computes n calls of one program in one forward. Fills timeline where it is given.
  static void run(Call* const* calls, size_t n, Timeline* timeline);
  // Computes the calls of the workspace's present forward.
  static void compute(PresentForward& present, Timeline* timeline);
  static void list_rows(PresentForward& present);
  // Ends a call whose forward has been computed: throws why it has no result, or counts its ids as filled.
  void conclude(Call& call, bool alone);
  Call run_alone(const ForwardRequest& request, const CancelFlag& cancel, Timeline* timeline = nullptr);

  std::shared_ptr<Model> model_;
  std::shared_ptr<Workspace> workspace_;
  const Sizes sizes_;
  Execution execution_;
  int32_t context_length_;
  cqil_dtype kv_dtype_;
  int32_t filled_ = 0;  // positions whose keys and values are valid
  uint64_t cache_bytes_ = 0;
  CancelFlag cancel_{false};
  cqil_backend_cache* cache_ = nullptr;
  int32_t rank_cache_ = 0;  // the id by which ranks know its cache; 0 where there are no ranks
};

}  // namespace cqil
