// What is asked of a session: token ids, where they stand, and what is to be known after them.
#pragma once
#include <atomic>
#include <cstdint>
#include <vector>

#include "../backend/backend.h"

namespace cqil {

struct ForwardRequest {
  std::vector<int32_t> ids;
  int32_t position = 0;
  cqil_output output = CQIL_OUTPUT_NONE;
  bool has_next = false;
  int32_t next = 0;    // the id after the last, when its score is wanted too
  int32_t count = 0;   // entries wanted of a shortlist
  int32_t listed = 1;  // ids, the last ones, that a shortlist is wanted after
  bool ahead = false;  // after a shortlist, the forward of its first token is begun at once; see Ahead
};

// Set from any thread to end a forward with ABORTED.
using CancelFlag = std::atomic<bool>;

}  // namespace cqil
