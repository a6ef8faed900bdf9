// What a shortlist of a row of logits must be: sorted apart from the engine, sums in double.
#pragma once
#include <algorithm>
#include <numeric>
#include <vector>

#include "backend/backend.h"
#include "check.h"

namespace check {

// Exact, except the log-sum-exp, which float32 sums leave within 2e-6.
inline void expect_shortlist(const cqil_shortlist& found, const std::vector<float>& logits, int32_t count,
                             const std::string& what) {
  std::vector<int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  auto logit = [&](int32_t id) { return logits[static_cast<size_t>(id)]; };
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return logit(a) > logit(b); });
  order.resize(std::min(order.size(), static_cast<size_t>(count)));
  bool same = found.count == static_cast<int32_t>(order.size());
  for (size_t i = 0; i < order.size(); i++)
    same = same && found.ids[i] == order[i] && found.logits[i] == logit(order[i]);
  that(same, what + ": the highest logits, in order");
  double sum = 0;
  for (float v : logits) sum += std::exp(static_cast<double>(v) - logit(order[0]));
  near(found.log_sum_exp, static_cast<double>(logit(order[0])) + std::log(sum), 2e-6, what + ": log-sum-exp");
}

// To the bit, in the entries there are.
inline bool same(const cqil_shortlist& a, const cqil_shortlist& b) {
  const auto n = static_cast<size_t>(a.count);
  return a.count == b.count && a.log_sum_exp == b.log_sum_exp && std::memcmp(a.ids, b.ids, n * sizeof a.ids[0]) == 0 &&
         std::memcmp(a.logits, b.logits, n * sizeof a.logits[0]) == 0;
}

}  // namespace check
