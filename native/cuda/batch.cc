#include "batch.h"

#include <algorithm>

namespace cqil::cuda {
namespace {

const DeviceCache& cache_of(const cqil_row& row) { return reinterpret_cast<const Cache*>(row.cache)->device; }

constexpr int32_t kCacheFormats[] = {CQIL_F32, CQIL_F16, CQIL_Q8_0};  // in the order of Step::rows

// Tokens of a row, from `first` on, whose logits are wanted.
struct Wanted {
  int32_t first, n;
};
Wanted wanted_of(const cqil_row& row) {
  switch (row.output) {
    case CQIL_OUTPUT_NONE:
    case CQIL_OUTPUT_TRACE: break;
    case CQIL_OUTPUT_LOGITS: return {row.n_ids - 1, 1};
    case CQIL_OUTPUT_ALL_LOGITS: return {0, row.n_ids};
    case CQIL_OUTPUT_SCORES: return {0, row.n_scores};
    case CQIL_OUTPUT_SHORTLIST: return {row.n_ids - row.n_listed, row.n_listed};
  }
  return {0, 0};
}

}  // namespace

Batch::Batch(const cqil_forward& request, const DeviceModel& model, DeviceInputs& inputs)
    : kv_dtype(static_cast<cqil_dtype>(cache_of(*request.rows).kv_dtype)) {
  for (int32_t i = 0; i < request.n_rows; i++) {
    const cqil_row& row = request.rows[i];
    const DeviceCache& cache = cache_of(row);
    const Wanted wanted = wanted_of(row);
    rows.push_back({&row, n_tokens, n_heads, wanted.n});
    for (int32_t t = 0; t < row.n_ids; t++) inputs.tokens[n_tokens + t] = {cache, row.position + t, row.ids[t], 0, 0};
    for (int32_t t = 0; t < wanted.n; t++) {
      DeviceToken& token = inputs.tokens[n_tokens + wanted.first + t];
      if (row.output == CQIL_OUTPUT_SCORES) token.target = row.targets[t];
      if (row.output == CQIL_OUTPUT_SHORTLIST) token.listed = row.shortlists[t].count;
      inputs.heads[n_heads + t] = n_tokens + wanted.first + t;
    }
    n_tokens += row.n_ids;
    n_heads += wanted.n;
    context = std::max(context, cache.context);
    end = std::max(end, row.position + row.n_ids);
  }
  int32_t at = 0;
  for (size_t format = 0; format < 3; format++) {
    CacheRows& of = of_format[format];
    of.first = at;
    for (const RowPlace& place : rows) {
      if (cache_of(*place.row).kv_dtype != kCacheFormats[format]) continue;
      inputs.rows[at++] = {place.first_token, place.row->n_ids, of.tiles};
      of.tiles += attention_tiles(model, place.row->n_ids);
      of.count++;
    }
  }
}

}  // namespace cqil::cuda
