// Picks the fastest execution of a plan by using each in turn: the first decoded tokens double as the measurement.
#pragma once
#include <atomic>
#include <optional>
#include <vector>

#include "../backend/backend.h"

namespace cqil {

class ExecutionTuner {
 public:
  // candidates: at least one; the first wins a draw.
  explicit ExecutionTuner(const std::vector<cqil_execution>& candidates) {
    for (cqil_execution candidate : candidates) entries_.push_back({candidate, 1e30});
  }

  cqil_execution next() const {
    if (const auto known = settled()) return *known;
    return entries_[samples_ % entries_.size()].execution;
  }

  // seconds: how long the decode that used next() took.
  void record(double seconds) {
    if (entries_.size() == 1 || settled()) return;
    Entry& entry = entries_[samples_ % entries_.size()];
    const bool warm = samples_ >= entries_.size();
    if (warm && seconds < entry.fastest) entry.fastest = seconds;
    if (++samples_ < kSamplesEach * entries_.size()) return;
    size_t best = 0;
    for (size_t i = 1; i < entries_.size(); i++)
      if (entries_[i].fastest < entries_[best].fastest) best = i;
    settled_ = static_cast<int>(best);
  }

  // Takes an execution as the fastest without measuring, unless that is done or it is no candidate. From any thread.
  void settle(cqil_execution execution) {
    int none = kMeasuring;
    for (size_t i = 0; i < entries_.size(); i++)
      if (entries_[i].execution == execution) settled_.compare_exchange_strong(none, static_cast<int>(i));
  }

  // What was found to be the fastest; nothing yet, or nothing to choose from. From any thread.
  std::optional<cqil_execution> settled() const {
    const int at = settled_;
    if (at == kMeasuring || entries_.size() == 1) return std::nullopt;
    return entries_[static_cast<size_t>(at)].execution;
  }

 private:
  struct Entry {
    cqil_execution execution;
    double fastest;  // seconds
  };
  static constexpr size_t kSamplesEach = 7;  // the first of each warms up
  static constexpr int kMeasuring = -1;
  std::vector<Entry> entries_;
  size_t samples_ = 0;
  std::atomic<int> settled_{kMeasuring};  // an index into entries_
};

}  // namespace cqil
