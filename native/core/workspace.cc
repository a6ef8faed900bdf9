#include "workspace.h"

namespace cqil {

Workspace::Workspace(Model& model, Program program, ExecutionTuner& tuner)
    : model_(model), program_(std::move(program)), tuner_(tuner), id_(model.leader() ? model.leader()->new_id() : 0) {
  const cqil_program view = program_.view();
  cqil_error error = {};
  check_status(model_.backend().workspace_create(model_.backend_model(), &view, &backend_, &error), error);
}

Workspace::~Workspace() {
  if (id_ > 0) model_.leader()->close(id_);
  if (backend_) model_.backend().workspace_destroy(backend_);
}

}  // namespace cqil
