// One text's keys and values on the device.
#pragma once
#include "model.h"

namespace cqil::cuda {

class Cache {
 public:
  // Throws INVALID_ARGUMENT, OUT_OF_MEMORY before anything is allocated, INTERNAL.
  Cache(Model& model, const cqil_cache_options& options);
  Cache(const Cache&) = delete;

  Model& model;
  DeviceCache device = {};

 private:
  DeviceArray<uint8_t> memory_;
};

}  // namespace cqil::cuda
