// Tests of the selection: logits of many kinds against a sort, on grids of any size.
#pragma once
#include "cuda_kernels_bench.h"
#include "shortlist.h"

namespace check {

inline cqil_shortlist select(Bench& b, const FloatVector& logits, int count) {
  write(b.s().logits, logits);
  cqil_shortlist poison;
  std::memset(&poison, 0xff, sizeof poison);
  write(b.s().shortlists, std::vector<cqil_shortlist>{poison});
  b.tokens[0].listed = count;
  b.send_tokens();
  device_ok(launch_select(b.step, 0, 1, nullptr), "select");
  return read(b.s().shortlists, 1)[0];
}

// Logits with ties, and what is not finite.
inline void test_select(Bench& b, int count) {
  const int vocab = b.c.vocab_size;
  FloatVector logits = b.random.vector(static_cast<size_t>(vocab), 8.0f);
  for (int i = 0; i < 20; i++)
    logits[static_cast<size_t>(b.random.below(vocab))] = logits[static_cast<size_t>(b.random.below(vocab))];
  expect_shortlist(select(b, logits, count), logits, count, b.name + " select");

  logits.assign(logits.size(), NAN);
  that(select(b, logits, count).ids[0] == 0, b.name + " select of what is not a number");

  for (float wrong : {NAN, INFINITY, -INFINITY}) {
    logits = b.random.vector(static_cast<size_t>(vocab), 8.0f);
    logits[static_cast<size_t>(b.random.below(vocab))] = wrong;
    that(std::isnan(select(b, logits, count).log_sum_exp),
         b.name + " select tells of a logit of " + std::to_string(wrong));
  }
}

// Where the highest are side by side, in fewer groups than are wanted (common/shortlist.cuh), in order, or equal.
inline void test_select_kinds(Bench& b) {
  const int vocab = b.c.vocab_size;
  const auto kinds = {"random", "rising", "falling", "equal", "zeros of both signs", "few values", "in 60 groups of 96",
                      "a run"};
  int kind = 0;
  for (const char* name : kinds) {
    FloatVector logits = b.random.vector(static_cast<size_t>(vocab), 8.0f);
    const int first = b.random.below(vocab);
    for (int i = 0; i < vocab; i++) {
      float& logit = logits[static_cast<size_t>(i)];
      if (kind == 1) logit = 1e-3f * static_cast<float>(i);
      if (kind == 2) logit = -1e-3f * static_cast<float>(i);
      if (kind == 3) logit = -3.25f;
      if (kind == 4) logit = logit > 0 ? 0.0f : -0.0f;
      if (kind == 5) logit = std::floor(logit);
      if (kind == 6 && (i + first) % 96 < 60) logit += 20.0f;
      if (kind == 7 && i >= first && i < first + 2000) logit += 20.0f;
    }
    const int multiprocessors = b.step.multiprocessors;
    for (int count : {1, 40, CQIL_MAX_SHORTLIST}) {
      const cqil_shortlist list = select(b, logits, count);
      const std::string what = b.name + " select " + std::to_string(count) + ", " + name;
      expect_shortlist(list, logits, count, what);
      b.step.multiprocessors = 1 + b.random.below(70);
      that(same(select(b, logits, count), list), what + ": to the bit on another grid");
      b.step.multiprocessors = multiprocessors;
    }
    kind++;
  }
  FloatVector logits = b.random.vector(static_cast<size_t>(vocab), 8.0f), as_listed = logits;
  for (int i = 0; i < vocab; i++) {
    const int rest = b.random.below(20);
    if (rest == 0) logits[static_cast<size_t>(i)] = NAN, as_listed[static_cast<size_t>(i)] = -INFINITY;
    if (rest == 1) logits[static_cast<size_t>(i)] = as_listed[static_cast<size_t>(i)] = -INFINITY;
    if (rest == 2) logits[static_cast<size_t>(i)] = as_listed[static_cast<size_t>(i)] = INFINITY;
  }
  cqil_shortlist list = select(b, logits, CQIL_MAX_SHORTLIST);
  that(std::isnan(list.log_sum_exp), b.name + " select tells of many that are not finite");
  std::vector<int32_t> order(static_cast<size_t>(vocab));
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int32_t i, int32_t j) {
    return as_listed[static_cast<size_t>(i)] > as_listed[static_cast<size_t>(j)];
  });
  order.resize(std::min(order.size(), size_t{CQIL_MAX_SHORTLIST}));
  that(std::equal(order.begin(), order.end(), list.ids), b.name + " select lists infinities by their order");
}

}  // namespace check
