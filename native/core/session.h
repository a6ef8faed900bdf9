// A sequence in progress: a compiled plan and the KV cache it fills.
#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "model.h"
#include "program.h"

namespace cqil {

enum class Execution { kAuto, kWide, kLanes, kPersistent };

struct ForwardRequest {
  std::vector<int32_t> ids;
  int32_t position = 0;
  cqil_output output = CQIL_OUTPUT_NONE;
  bool has_next = false;
  int32_t next = 0;   // the id after the last, when its score is wanted too
  int32_t count = 0;  // entries wanted of a shortlist
};

class Session {
 public:
  // Throws INVALID_PLAN, INVALID_ARGUMENT, OUT_OF_MEMORY, or BACKEND_UNAVAILABLE for an execution the backend does not have.
  Session(std::shared_ptr<Model> model, const Plan& plan, Execution execution, int32_t context_length,
          cqil_dtype kv_dtype = CQIL_F32);
  ~Session();
  Session(const Session&) = delete;

  // Runs ids at request.position and returns logits [vocab_size] or [ids, vocab_size], scores, a
  // trace, or nothing. Throws INVALID_ARGUMENT,
  // CONTEXT_OVERFLOW or ABORTED; after an error the positions before request.position are as they were.
  std::vector<float> forward(const ForwardRequest& request);
  // The same for a request of a shortlist: the highest request.count logits after the last id. Throws also INVALID_ARGUMENT for a count
  // outside 1 .. CQIL_MAX_SHORTLIST.
  cqil_shortlist shortlist(const ForwardRequest& request);
  // What forward() does, thrown away, and when each thread computed what: in order of threads, then of time. Throws also
  // BACKEND_UNAVAILABLE when the backend keeps no times.
  std::vector<cqil_span> timeline(const ForwardRequest& request);
  // The forward in flight, or the one queued since arm(), ends with ABORTED at its next stage. From any thread.
  void cancel() { cancel_ = 1; }
  // Forgets an earlier cancel(); called when a forward is queued.
  void arm() { cancel_ = 0; }
  uint64_t cache_bytes() const { return cache_bytes_; }
  // What kAuto takes for this program, as found in an earlier process, and as found or given in this one; see ExecutionTuner. From any thread.
  void settle(Execution execution);
  std::optional<cqil_execution> settled() const { return tuner_.settled(); }

 private:
  void check(const ForwardRequest& request) const;
  // Each of the two is filled where it is given; spans must then be as many as there may be.
  std::vector<float> run(const ForwardRequest& request, std::vector<cqil_span>* spans, cqil_shortlist* shortlist);

  std::shared_ptr<Model> model_;
  Program program_;
  Execution execution_;
  ExecutionTuner& tuner_;  // the model's, for this program
  int32_t context_length_;
  int32_t filled_ = 0;  // positions whose keys and values are valid
  uint64_t cache_bytes_ = 0;
  volatile int32_t cancel_ = 0;
  cqil_backend_session* backend_session_ = nullptr;
};

}  // namespace cqil
