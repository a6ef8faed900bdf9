// The highest few of a row of logits, by which a caller samples.
#pragma once
#include "../backend/backend.h"

namespace cqil {

// Fills ids and logits with the highest `list.count` of logits [vocab], in falling order, ties by lowest id; lowers
// list.count to vocab where that is smaller. False when a logit is NaN or plus infinity: the list then means nothing.
bool list_highest(const float* logits, int32_t vocab, cqil_shortlist& list);

}  // namespace cqil
