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

Model::Model(WeightsSpec spec, const cqil_backend& backend, const cqil_model_options& options)
    : weights_(std::make_unique<Weights>(std::move(spec))), backend_(backend), options_(options) {
  cqil_error error = {};
  check_status(backend_.model_create(&weights_->view(), &options_, &backend_model_, &error), error);
}

static cqil_model_options variant_options(cqil_model_options options, cqil_backend_model* base) {
  options.base = base;
  return options;
}

Model::Model(std::shared_ptr<Model> base, const AdapterSpec& adapter)
    : base_(std::move(base)),
      merged_(std::make_unique<MergedWeights>(base_->weights(), adapter, base_->threads())),
      backend_(base_->backend_),
      options_(variant_options(base_->options_, base_->backend_model_)) {
  cqil_error error = {};
  check_status(backend_.model_create(&merged_->view(), &options_, &backend_model_, &error), error);
  try {
    std::lock_guard<std::mutex> lock(forward_mutex());
    for (const void* data : merged_->matrices())
      if (prepare(data)) merged_->release(data);
  } catch (...) {
    backend_.model_destroy(backend_model_);
    throw;
  }
}

// Whether the data is not read again. To be called under forward_mutex().
bool Model::prepare(const void* data) {
  if (!backend_.prepare) return false;
  cqil_error error = {};
  int32_t moved = 0;
  check_status(backend_.prepare(backend_model_, data, &moved, &error), error);
  return moved != 0;
}

void Model::prefetch(uint64_t from, uint64_t to) {
  if (base_) return;
  weights_->prefetch(from, to);
  std::lock_guard<std::mutex> lock(forward_mutex());
  for (const void* data : weights_->ending_in(from, to))
    if (prepare(data)) weights_->release(data);
}

Model::~Model() { backend_.model_destroy(backend_model_); }

ExecutionTuner& Model::tuner(const Program& program) {
  std::vector<int32_t> stages;
  for (const cqil_phase& phase : program.phases)
    if (phase.kind == CQIL_QKV) stages.push_back(phase.first_layer);
  std::lock_guard<std::mutex> lock(tuners_mutex_);
  const auto found = tuners_.find(stages);
  if (found != tuners_.end()) return found->second;
  std::vector<cqil_execution> candidates;
  for (cqil_execution execution : {CQIL_WIDE, CQIL_LANES, CQIL_PERSISTENT})
    if (backend_.executions(backend_model_) & 1u << execution && (execution != CQIL_LANES || program.max_lanes > 1)) candidates.push_back(execution);
  return tuners_.try_emplace(stages, candidates).first->second;
}

}  // namespace cqil
