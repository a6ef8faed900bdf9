// Where forwards of one program are computed: its activations and scratch, and what is known of the fastest way to
// compute it. One per model and program, shared by all sessions; a session's own is its cache.
#pragma once
#include <memory>

#include "execution_tuner.h"
#include "model.h"
#include "program.h"
#include "schedule.h"

namespace cqil {

class Workspace {
 public:
  // Throws what the backend throws. The model, which has the tuner, outlives it.
  Workspace(Model& model, Program program, ExecutionTuner& tuner);
  ~Workspace();
  Workspace(const Workspace&) = delete;

  const Program& program() const { return program_; }
  // As ranks know it; 0 where there are none.
  int32_t id() const { return id_; }
  // To be used under the model's forward_mutex().
  ExecutionTuner& tuner() { return tuner_; }
  cqil_backend_workspace* backend() const { return backend_; }
  // Of the present forward: to be used under the model's forward_mutex().
  Schedule& schedule() { return schedule_; }

 private:
  Model& model_;
  const Program program_;
  ExecutionTuner& tuner_;  // the model's
  const int32_t id_;
  Schedule schedule_;
  cqil_backend_workspace* backend_ = nullptr;
};

}  // namespace cqil
