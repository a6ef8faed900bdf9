// A loaded model: weights, and the backend's own side of them. Sessions share it and keep it alive.
#pragma once
#include <mutex>

#include "../backend/backend.h"
#include "weights.h"

namespace cqil {

class Model {
 public:
  // Throws what Weights and the backend throw.
  Model(WeightsSpec spec, const cqil_backend& backend, int32_t threads);
  ~Model();
  Model(const Model&) = delete;

  const cqil_shape& shape() const { return weights_.view().shape; }
  const Weights& weights() const { return weights_; }
  const cqil_backend& backend() const { return backend_; }
  cqil_backend_model* backend_model() const { return backend_model_; }
  // Held during a forward: the sessions of a model share its threads or device.
  std::mutex& forward_mutex() { return forward_mutex_; }

 private:
  Weights weights_;
  const cqil_backend& backend_;
  cqil_backend_model* backend_model_ = nullptr;
  std::mutex forward_mutex_;
};

// Throws the error of a backend call that did not return CQIL_OK.
void check_status(cqil_status status, const cqil_error& error);

}  // namespace cqil
