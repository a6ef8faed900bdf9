// Whether two calls of sessions gave the same results.
#pragma once
#include "core/session.h"
#include "shortlist.h"

namespace check {

// To the bit; false where either failed.
inline bool same(const cqil::Call& a, const cqil::Call& b) {
  if (a.failure || b.failure || a.shortlists.size() != b.shortlists.size()) return false;
  for (size_t i = 0; i < a.shortlists.size(); i++)
    if (!same(a.shortlists[i], b.shortlists[i])) return false;
  return static_cast<bool>(same_bits(a.result, b.result));
}

}  // namespace check
