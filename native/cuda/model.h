// A model on one device.
#pragma once
#include <mutex>
#include <string>

#include "device.h"
#include "products.h"
#include "weights.h"

namespace cqil::cuda {

struct Model {
  Model(const cqil_weights& host, const Device& device, const Model* base)
      : shape(host.shape),
        device(device),
        weights(host, base ? &base->weights : nullptr),
        library(Products::take_library(host) ? CublasLt::open() : nullptr) {}

  const cqil_shape shape;  // rope_frequencies are the host's, which outlives this
  const Device device;
  const Weights weights;
  const std::unique_ptr<CublasLt> library;  // null where there is none, or no use for it

  // Why the device is lost, once it is: every later call fails with this sentence.
  std::string lost() const {
    std::lock_guard<std::mutex> lock(lost_mutex_);
    return lost_;
  }
  void lose(const std::string& sentence) {
    std::lock_guard<std::mutex> lock(lost_mutex_);
    if (lost_.empty()) lost_ = sentence;
  }

 private:
  mutable std::mutex lost_mutex_;  // workspaces and caches are made and freed on other threads than those that compute
  std::string lost_;
};

}  // namespace cqil::cuda
