#include "session.h"

#include <algorithm>

#include "../core/dtype.h"

namespace cqil {
namespace {

// Values of one head in whole vectors and whole blocks of the cache's format.
int64_t whole_blocks(cqil_dtype kv_dtype, int64_t head_dim) {
  const int64_t unit = std::max<int64_t>(kPad, dtype_info(kv_dtype).block_weights);
  return (head_dim + unit - 1) / unit * unit;
}

}  // namespace

CpuSession::CpuSession(CpuModel& model, const cqil_program& compiled, const cqil_session_options& options)
    : model(model),
      phases(compiled.phases, compiled.phases + compiled.n_phases),
      program(compiled),
      context(options.context_length),
      kv_dtype(options.kv_dtype),
      batch(std::min<int64_t>(context, CQIL_MAX_BATCH)),
      dim_stride(padded(model.weights.shape.dim)),
      head_stride(whole_blocks(kv_dtype, model.weights.shape.head_dim)),
      query_stride(head_stride * model.weights.shape.n_heads),
      attention_stride(padded(static_cast<int64_t>(model.weights.shape.head_dim) * model.weights.shape.n_heads)),
      hidden_stride(padded(model.weights.shape.hidden_dim)),
      scores_stride(padded(context)),
      kv_stride(row_bytes(kv_dtype, head_stride)),
      rounded_stride(model.rounded ? model.rounded->row_bytes(std::max({dim_stride, attention_stride, hidden_stride}))
                                   : 0),
      all(model.team.size()) {
  program.phases = phases.data();
  const cqil_shape& shape = model.weights.shape;
  const size_t lanes = static_cast<size_t>(program.max_lanes);
  auto rows = [](int64_t n, int64_t stride) { return static_cast<size_t>(n) * static_cast<size_t>(stride); };

  const size_t cache =
      rows(static_cast<int64_t>(shape.n_layers) * shape.n_kv_heads, kv_stride) * static_cast<size_t>(context);
  keys = Bytes(cache);
  values = Bytes(cache);
  x = Floats(rows(batch, dim_stride));
  norm = Floats(lanes * rows(batch, dim_stride));
  query = Floats(lanes * rows(batch, query_stride));
  attention = Floats(lanes * rows(batch, attention_stride));
  attention_out = Floats(lanes * rows(batch, dim_stride));
  gate_up = Floats(lanes * rows(batch, hidden_stride));
  mlp_out = Floats(lanes * rows(batch, dim_stride));
  rounded = Bytes(lanes * rows(batch, rounded_stride));
  logits = Floats(rows(kScoreRows, shape.vocab_size));
  rope_cos = Floats(rows(context, shape.head_dim / 2));
  rope_sin = Floats(rows(context, shape.head_dim / 2));

  const int64_t widest = std::max({dim_stride, attention_stride, hidden_stride});
  const int64_t tile_rows = std::max(heads_per_unit(model) * shape.head_dim, kMostPanelRows);
  scratch.resize(static_cast<size_t>(model.team.size()));
  for (Scratch& own : scratch) {
    own.panel = Floats(rows(kPanelRows, (widest + 31) / 32 * 32));
    own.tile = Floats(std::max(rows(batch, tile_rows), rows(1, widest)));
    own.norm = Floats(rows(1, dim_stride));
    own.scores = Floats(rows(kAttendQueries, scores_stride));
    own.head = Floats(static_cast<size_t>(head_stride));
    own.rounded = Bytes(lanes * rows(1, rounded_stride));
  }

  claimed.reset(new Claim[phases.size() * lanes * static_cast<size_t>(model.team.size())]);
  const int most_crews = std::min(program.max_lanes, model.team.size());
  for (int n = 2; n <= most_crews; n++) {
    crews.emplace_back();
    for (int c = 0; c < n; c++) crews.back().push_back(std::make_unique<Barrier>(1));
  }
}

void CpuSession::share_among(int members) {
  all.set_count(members);
  for (int n = 2; n - 2 < static_cast<int>(crews.size()); n++)
    for (int c = 0; c < n; c++)
      crews[static_cast<size_t>(n - 2)][static_cast<size_t>(c)]->set_count((members - c + n - 1) / n);
  const size_t counters = phases.size() * static_cast<size_t>(program.max_lanes * members);
  for (size_t i = 0; i < counters; i++) claimed[i].taken.store(0, std::memory_order_relaxed);
}

}  // namespace cqil
