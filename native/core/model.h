// A loaded model: weights, and the backend's own side of them. Sessions share it and keep it alive.
#pragma once
#include <map>
#include <mutex>
#include <vector>

#include "../backend/backend.h"
#include "execution_tuner.h"
#include "program.h"
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
  // What sessions of the same program have learnt about its executions. To be used under forward_mutex().
  ExecutionTuner& tuner(const Program& program);

 private:
  Weights weights_;
  const cqil_backend& backend_;
  cqil_backend_model* backend_model_ = nullptr;
  std::mutex forward_mutex_;
  std::mutex tuners_mutex_;  // not forward_mutex_: sessions are made on the JavaScript thread, which waits for nothing long
  std::map<std::vector<int32_t>, ExecutionTuner> tuners_;  // by the first layer of every stage
};

// Throws the error of a backend call that did not return CQIL_OK.
void check_status(cqil_status status, const cqil_error& error);

}  // namespace cqil
