#include "shortlist.h"

#include <algorithm>
#include <limits>

namespace cqil {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr int32_t kBlock = 64;  // logits that are looked at together: hardly any block holds one that enters

// Whether one of n is above `lowest`, or no number.
bool any_above(const float* logits, int32_t n, float lowest) {
  int32_t any = 0;
  for (int32_t i = 0; i < n; i++) any |= !(logits[i] <= lowest);
  return any != 0;
}

}  // namespace

bool list_highest(const float* logits, int32_t vocab, cqil_shortlist& list) {
  const int32_t wanted = std::min(list.count, vocab);
  int32_t held = 0;
  float lowest = -kInfinity;  // of the list once it is full: what does not exceed it cannot enter, as its id is higher
  bool finite = true;
  for (int32_t first = 0; first < vocab; first += kBlock) {
    const int32_t end = std::min(first + kBlock, vocab);
    if (held == wanted && !any_above(logits + first, end - first, lowest)) continue;
    for (int32_t id = first; id < end; id++) {
      const float logit = logits[id];
      if (held == wanted && logit <= lowest) continue;
      if (!(logit < kInfinity)) finite = false;  // false for NaN, which no comparison puts in order
      int32_t at = held < wanted ? held++ : held - 1;
      for (; at > 0 && list.logits[at - 1] < logit; at--) {
        list.logits[at] = list.logits[at - 1];
        list.ids[at] = list.ids[at - 1];
      }
      list.logits[at] = logit;
      list.ids[at] = id;
      lowest = list.logits[held - 1];
    }
  }
  list.count = held;
  return finite;
}

}  // namespace cqil
