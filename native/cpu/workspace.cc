#include "workspace.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "../core/dtype.h"

namespace cqil {
namespace {

// Values of one head in whole vectors and whole blocks of the cache's format.
int64_t whole_blocks(cqil_dtype kv_dtype, int64_t head_dim) {
  const int64_t unit = std::max<int64_t>(kPad, dtype_info(kv_dtype).block_weights);
  return (head_dim + unit - 1) / unit * unit;
}

// A row of a query is as wide as a head in any format that a cache may have.
int64_t widest_head(int64_t head_dim) {
  int64_t widest = 0;
  for (cqil_dtype kv_dtype : {CQIL_F32, CQIL_F16, CQIL_Q8_0})
    widest = std::max(widest, whole_blocks(kv_dtype, head_dim));
  return widest;
}

size_t area(int64_t n, int64_t stride) { return static_cast<size_t>(n) * static_cast<size_t>(stride); }

// `from` with room for `n`, of which the first `kept` are there.
Floats grown(const Floats& from, int64_t kept, size_t n) {
  Floats to(n);
  if (kept > 0) std::memcpy(to.get(), from.get(), static_cast<size_t>(kept) * sizeof(float));
  return to;
}

// A place in a result; null where nobody wants the result.
template <class T>
T* at(T* result, int64_t i) {
  return result ? result + i : nullptr;
}

// Of one position, of every RoPE.
int64_t angles_of(const cqil_shape& shape) { return shape.n_ropes * (shape.rope_dim / 2); }

}  // namespace

CpuCache::CpuCache(const CpuModel& model, const cqil_cache_options& options)
    : context(options.context_length),
      kv_dtype(options.kv_dtype),
      n_kv_heads(model.weights.shape.n_kv_heads),
      head_stride(whole_blocks(kv_dtype, model.weights.shape.head_dim)),
      kv_stride(row_bytes(kv_dtype, head_stride)),
      keys(area(model.weights.shape.n_layers * n_kv_heads, kv_stride) * static_cast<size_t>(context)),
      values(area(model.weights.shape.n_layers * n_kv_heads, kv_stride) * static_cast<size_t>(context)) {}

CpuWorkspace::CpuWorkspace(CpuModel& model, const cqil_program& compiled)
    : model(model),
      program(compiled),
      dim_stride(padded(model.weights.shape.dim)),
      head_stride(widest_head(model.weights.shape.head_dim)),
      query_stride(head_stride * model.weights.shape.n_heads),
      attention_stride(padded(static_cast<int64_t>(model.weights.shape.head_dim) * model.weights.shape.n_heads)),
      hidden_stride(padded(model.weights.shape.hidden_dim)),
      rounded_stride(model.rounded ? model.rounded->row_bytes(std::max({dim_stride, attention_stride, hidden_stride}))
                                   : 0),
      all(model.team.size()) {
  program.phases = nullptr;
  const cqil_shape& shape = model.weights.shape;
  const size_t lanes = static_cast<size_t>(program.max_lanes);
  x = Floats(area(batch, dim_stride));
  norm = Floats(lanes * area(batch, dim_stride));
  query = Floats(lanes * area(batch, query_stride));
  attention = Floats(lanes * area(batch, attention_stride));
  attention_out = Floats(lanes * area(batch, dim_stride));
  gate_up = Floats(lanes * area(batch, hidden_stride));
  mlp_out = Floats(lanes * area(batch, dim_stride));
  rounded = Bytes(lanes * area(batch, rounded_stride));
  logits = Floats(area(kHeadRows, shape.vocab_size));

  const int64_t widest = std::max({dim_stride, attention_stride, hidden_stride});
  const int64_t tile_rows = std::max(heads_per_unit(model) * shape.head_dim, kMostPanelRows);
  scratch.resize(static_cast<size_t>(model.team.size()));
  for (Scratch& own : scratch) {
    own.panel = Floats(area(kPanelRows, (widest + 31) / 32 * 32));
    own.tile = Floats(std::max(area(batch, tile_rows), area(1, widest)));
    own.norm = Floats(area(1, dim_stride));
    own.head = Floats(static_cast<size_t>(head_stride));
    own.rounded = Bytes(lanes * area(1, rounded_stride));
  }

  if (model.ranks) reduction.emplace(*model.ranks, shape.dim);
  tokens.reserve(batch);
  rows.reserve(batch);
  heads.reserve(batch);

  claimed.reset(new Claim[static_cast<size_t>(program.n_phases) * lanes * static_cast<size_t>(model.team.size())]);
  const int most_crews = std::min(program.max_lanes, model.team.size());
  for (int n = 2; n <= most_crews; n++) {
    crews.emplace_back();
    for (int c = 0; c < n; c++) crews.back().push_back(std::make_unique<Barrier>(1));
  }
}

void CpuWorkspace::take(const cqil_forward& request) {
  const int64_t n_heads = model.weights.shape.n_heads, kv_heads = model.weights.shape.n_kv_heads;
  const int64_t vocab = model.weights.shape.vocab_size;
  tokens.clear();
  rows.clear();
  heads.clear();
  attention_units = 0;
  int64_t end = 0;
  for (int32_t i = 0; i < request.n_rows; i++) {
    const cqil_row& row = request.rows[i];
    const CpuCache* cache = reinterpret_cast<const CpuCache*>(row.cache);
    const int64_t first = static_cast<int64_t>(tokens.size()), n = row.n_ids, last = first + n - 1;
    // The heads that share keys and values go together where there is one token.
    const int64_t units = n == 1 ? 1 : n_heads / kv_heads;
    const int64_t parts =
        n == 1 ? (n_heads / kv_heads + kAttendQueries - 1) / kAttendQueries : (n + kTokensPerUnit - 1) / kTokensPerUnit;
    rows.push_back({&row, cache, first, attention_units, parts});
    attention_units += units * parts;
    for (int32_t t = 0; t < n; t++) tokens.push_back({cache, row.position + t, row.ids[t]});
    switch (row.output) {
      case CQIL_OUTPUT_NONE:
      case CQIL_OUTPUT_TRACE: break;
      case CQIL_OUTPUT_LOGITS: heads.push_back({last, row.result, nullptr, nullptr, 0}); break;
      case CQIL_OUTPUT_ALL_LOGITS:
        for (int64_t t = 0; t < n; t++) heads.push_back({first + t, at(row.result, t * vocab), nullptr, nullptr, 0});
        break;
      case CQIL_OUTPUT_SCORES:
        for (int64_t t = 0; t < row.n_scores; t++)
          heads.push_back({first + t, nullptr, at(row.result, t), nullptr, row.result ? row.targets[t] : 0});
        break;
      case CQIL_OUTPUT_SHORTLIST:
        for (int64_t t = 0; t < row.n_listed; t++)
          heads.push_back({last + 1 - row.n_listed + t, nullptr, nullptr, at(row.shortlists, t), 0});
        break;
    }
    end = std::max<int64_t>(end, row.position + n);
  }
  reach(end);
}

void CpuWorkspace::reach(int64_t end) {
  constexpr int64_t kLeast = 512;
  if (end > reached) {
    const int64_t room = std::max({kLeast, end, 2 * reached}), angles = angles_of(model.weights.shape);
    Floats cos = grown(rope_cos, rope_filled * angles, area(room, angles));
    rope_sin = grown(rope_sin, rope_filled * angles, area(room, angles));
    rope_cos = std::move(cos);
    // No score is read that was not written in the same call.
    for (Scratch& own : scratch) own.scores = Floats(area(kAttendQueries, padded(room)));
    scores_stride = padded(room);
    reached = room;
  }
  // Angles in double: position times frequency in float32 is off by position * 2^-24 radians.
  const cqil_shape& shape = model.weights.shape;
  const int64_t angles = angles_of(shape);
  for (int64_t p = rope_filled; p < end; p++) {
    for (int64_t i = 0; i < angles; i++) {
      const double angle = static_cast<double>(p) * shape.rope_frequencies[i];
      rope_cos.get()[p * angles + i] = static_cast<float>(std::cos(angle) * shape.rope_attention_factor);
      rope_sin.get()[p * angles + i] = static_cast<float>(std::sin(angle) * shape.rope_attention_factor);
    }
  }
  rope_filled = std::max(rope_filled, end);
}

void CpuWorkspace::share_among(int members) {
  all.set_count(members);
  for (int n = 2; n - 2 < static_cast<int>(crews.size()); n++)
    for (int c = 0; c < n; c++)
      crews[static_cast<size_t>(n - 2)][static_cast<size_t>(c)]->set_count((members - c + n - 1) / n);
  const size_t counters = static_cast<size_t>(program.n_phases) * static_cast<size_t>(program.max_lanes * members);
  for (size_t i = 0; i < counters; i++) claimed[i].taken.store(0, std::memory_order_relaxed);
}

}  // namespace cqil
