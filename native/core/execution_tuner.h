// Picks the faster execution of a plan by using both. They give the same bits, so the first decoded tokens of a session
// double as the measurement.
#pragma once
#include "../backend/backend.h"

namespace cqil {

class ExecutionTuner {
 public:
  cqil_execution next() const { return samples_ < kSamples ? static_cast<cqil_execution>(samples_ % 2) : best_; }

  // seconds: how long the decode that used next() took.
  void record(double seconds) {
    if (samples_ >= kSamples) return;
    double& fastest = fastest_[samples_ % 2];
    if (samples_ >= kWarmUp && seconds < fastest) fastest = seconds;
    if (++samples_ == kSamples) best_ = fastest_[CQIL_LANES] < fastest_[CQIL_WIDE] ? CQIL_LANES : CQIL_WIDE;
  }

 private:
  static constexpr int kWarmUp = 2, kSamples = 14;
  double fastest_[2] = {1e30, 1e30};
  int samples_ = 0;
  cqil_execution best_ = CQIL_WIDE;
};

}  // namespace cqil
