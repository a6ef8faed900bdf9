#include "workspace.h"

namespace cqil {

Workspace::Workspace(Model& model, Program program, ExecutionTuner& tuner)
    : model_(model), program_(std::move(program)), tuner_(tuner) {
  const cqil_program view = program_.view();
  cqil_error error = {};
  check_status(model_.backend().workspace_create(model_.backend_model(), &view, &backend_, &error), error);
}

Workspace::~Workspace() {
  if (backend_) model_.backend().workspace_destroy(backend_);
}

}  // namespace cqil
