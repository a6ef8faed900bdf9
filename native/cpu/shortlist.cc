#include "shortlist.h"

#include <algorithm>
#include <limits>

namespace cqil {

bool list_highest(const float* logits, int32_t vocab, cqil_shortlist& list) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const int32_t wanted = std::min(list.count, vocab);
  int32_t held = 0;
  float lowest = -kInfinity;  // of the list once it is full: what does not exceed it cannot enter, as its id is higher
  bool finite = true;
  for (int32_t id = 0; id < vocab; id++) {
    const float logit = logits[id];
    if (held == wanted && logit <= lowest) continue;
    if (!(logit < kInfinity)) finite = false;  // false for NaN, which no comparison lets in order
    int32_t at = held < wanted ? held++ : held - 1;
    for (; at > 0 && list.logits[at - 1] < logit; at--) {
      list.logits[at] = list.logits[at - 1];
      list.ids[at] = list.ids[at - 1];
    }
    list.logits[at] = logit;
    list.ids[at] = id;
    lowest = list.logits[held - 1];
  }
  list.count = held;
  return finite;
}

}  // namespace cqil
