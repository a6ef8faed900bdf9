// A sequence in progress: a compiled plan and the KV cache it fills.
#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "forward_request.h"
#include "model.h"
#include "program.h"
#include "schedule.h"

namespace cqil {

// When each thread computed what of one forward: spans index the schedule's steps.
struct Timeline {
  std::vector<cqil_span> spans;  // in order of threads, then of time
  Schedule schedule;
};

enum class Execution { kAuto, kWide, kLanes, kPersistent };

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
  // The forward in flight, or the one queued since arm(), ends with ABORTED at its next stage. From any thread.
  void cancel();
  // Forgets an earlier cancel(); called when a forward is queued.
  void arm() { cancel_ = false; }
  int32_t context_length() const { return context_length_; }
  // Where forwards of this session may be under way before they are asked for.
  Ahead& ahead() const { return model_->ahead(); }
  uint64_t cache_bytes() const { return cache_bytes_; }
  // The way that kAuto begins with for this program, found in an earlier process, and the way that it takes at present,
  // see ExecutionTuner. Both may be called from any thread.
  void settle(Execution execution, int32_t threads);
  std::optional<Way> settled() const { return tuner_.settled(); }

 private:
  void check(const ForwardRequest& request) const;
  void expect_finite(const ForwardRequest& request, const std::vector<float>& result,
                     const cqil_shortlist* shortlist) const;
  // spans and shortlist are filled where they are given.
  std::vector<float> run(const ForwardRequest& request, std::vector<cqil_span>* spans, cqil_shortlist* shortlist,
                         const CancelFlag& cancel);

  std::shared_ptr<Model> model_;
  Program program_;
  const Sizes sizes_;
  Schedule schedule_;  // of the present forward
  Execution execution_;
  ExecutionTuner& tuner_;  // the model's, for this program
  int32_t context_length_;
  cqil_dtype kv_dtype_;
  int32_t filled_ = 0;  // positions whose keys and values are valid
  uint64_t cache_bytes_ = 0;
  CancelFlag cancel_{false};
  cqil_backend_session* backend_session_ = nullptr;
};

}  // namespace cqil
