// Token ids for the small model, and what a session makes of them.
#pragma once
#include <algorithm>
#include <vector>

#include "check.h"
#include "core/session.h"

namespace check {

inline std::vector<int32_t> some_ids(int n) {
  Random random(5);
  std::vector<int32_t> ids;
  for (int i = 0; i < n; i++) ids.push_back(random.below(101));
  return ids;
}

// Logits after all ids, given in pieces of these sizes, the last size repeating.
inline std::vector<float> run(cqil::Session& session, const std::vector<int32_t>& ids,
                              const std::vector<size_t>& pieces) {
  std::vector<float> logits;
  size_t at = 0, piece = 0;
  while (at < ids.size()) {
    const size_t n = std::min(pieces[std::min(piece++, pieces.size() - 1)], ids.size() - at);
    cqil::ForwardRequest request;
    request.ids.assign(ids.begin() + static_cast<long>(at), ids.begin() + static_cast<long>(at + n));
    request.position = static_cast<int32_t>(at);
    request.output = CQIL_OUTPUT_LOGITS;
    logits = session.forward(request);
    at += n;
  }
  return logits;
}

}  // namespace check
