// The rows of a forward as kernels find them: every row's tokens one after the other, and what is wanted of them.
#pragma once
#include <vector>

#include "cache.h"

namespace cqil::cuda {

// A row's part of the tokens, and of those whose logits are wanted.
struct RowPlace {
  const cqil_row* row;
  int32_t first_token;
  int32_t first_head, n_heads;
};

struct Batch {
  // Fills inputs. native/core/session.cc has checked the request.
  Batch(const cqil_forward& request, const DeviceModel& model, DeviceInputs& inputs);

  std::vector<RowPlace> rows;  // in the order of the request
  int32_t n_tokens = 0, n_heads = 0;
  cqil_dtype kv_dtype;          // of the first row's cache
  CacheRows of_format[3] = {};  // see Step::rows
  int32_t context = 0;          // of the longest cache
  int32_t end = 0;              // positions up to the last one of any row
};

}  // namespace cqil::cuda
