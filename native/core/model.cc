#include "model.h"

#include "error.h"

namespace cqil {

void check_status(cqil_status status, const cqil_error& error) {
  const char* code = nullptr;
  switch (status) {
    case CQIL_OK: return;
    case CQIL_INVALID_ARGUMENT: code = "INVALID_ARGUMENT"; break;
    case CQIL_UNSUPPORTED_MODEL: code = "UNSUPPORTED_MODEL"; break;
    case CQIL_BACKEND_UNAVAILABLE: code = "BACKEND_UNAVAILABLE"; break;
    case CQIL_OUT_OF_MEMORY: code = "OUT_OF_MEMORY"; break;
    case CQIL_ABORTED: throw Error("ABORTED", "The call was aborted.");
    case CQIL_INTERNAL: code = "INTERNAL"; break;
  }
  throw Error(code ? code : "INTERNAL", error.text);
}

Model::Model(WeightsSpec spec, const cqil_backend& backend, int32_t threads) : weights_(std::move(spec)), backend_(backend) {
  cqil_error error = {};
  check_status(backend_.model_create(&weights_.view(), threads, &backend_model_, &error), error);
}

Model::~Model() { backend_.model_destroy(backend_model_); }

ExecutionTuner& Model::tuner(const Program& program) {
  std::vector<int32_t> stages;
  for (const cqil_phase& phase : program.phases)
    if (phase.kind == CQIL_QKV) stages.push_back(phase.first_layer);
  std::lock_guard<std::mutex> lock(tuners_mutex_);
  return tuners_[stages];
}

}  // namespace cqil
