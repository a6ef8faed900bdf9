// Where forwards of one program are computed: its activations and scratch, and what is known of the fastest way to
// compute it. One per model and program, shared by all sessions; a session's own is its cache.
#pragma once
#include <memory>
#include <vector>

#include "execution_tuner.h"
#include "model.h"
#include "program.h"
#include "schedule.h"

namespace cqil {

struct Call;  // session.h

// What the core needs during a forward, kept so that memory for it is not taken for each token.
struct PresentForward {
  std::vector<Call*> calls;
  std::vector<cqil_row> rows;    // a row for each call
  std::vector<int32_t> targets;  // of all rows whose scores are wanted
  Schedule schedule;
};

class Workspace {
 public:
  // Throws what the backend throws. The model, which has the tuner, outlives it.
  Workspace(Model& model, Program program, ExecutionTuner& tuner);
  ~Workspace();
  Workspace(const Workspace&) = delete;

  const Program& program() const { return program_; }
  // The id by which ranks know it; 0 where there are no ranks.
  int32_t id() const { return id_; }
  // To be used under the model's forward_mutex().
  ExecutionTuner& tuner() { return tuner_; }
  cqil_backend_workspace* backend() const { return backend_; }
  // To be used under the model's forward_mutex().
  PresentForward& present() { return present_; }

 private:
  Model& model_;
  const Program program_;
  ExecutionTuner& tuner_;  // the model's
  const int32_t id_;
  PresentForward present_;
  cqil_backend_workspace* backend_ = nullptr;
};

}  // namespace cqil
