// A model's weights on the device, in the form the kernels read.
#pragma once
#include <map>
#include <vector>

#include "kernels/launch.h"
#include "memory.h"

namespace cqil::cuda {

class Weights {
 public:
  // Copies everything to the current device, after checking that it and a short session fit. What lies at the same host
  // address in base, if there is one, is shared with it. Throws OUT_OF_MEMORY before anything is copied,
  // UNSUPPORTED_MODEL, INTERNAL.
  Weights(const cqil_weights& host, const Weights* base);
  Weights(const Weights&) = delete;

  const DeviceModel& device() const { return device_; }
  // What device().layers points to, on the host.
  const DeviceLayer& layer(int32_t i) const { return host_layers_[static_cast<size_t>(i)]; }

 private:
  struct Placed {
    Matrix matrix;
    DeviceArray<uint8_t> memory;
  };
  struct Upload;  // staging buffers while the constructor runs

  const Placed* find(const void* host) const;
  Matrix place(const cqil_tensor& tensor, Upload& upload);
  const float* place_vector(const cqil_tensor& tensor, Upload& upload);
  void check_memory(const cqil_weights& host) const;

  const Weights* base_;
  std::map<const void*, Placed> placed_;  // by the host's data
  DeviceArray<float> vectors_;            // all norms and biases
  std::vector<DeviceLayer> host_layers_;
  DeviceArray<DeviceLayer> layers_;
  DeviceModel device_ = {};
};

}  // namespace cqil::cuda
