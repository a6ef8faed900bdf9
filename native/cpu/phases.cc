#include "phases.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "../core/dtype.h"
#include "../core/held.h"
#include "shortlist.h"

namespace cqil {
namespace {

// Units 0 … n − 1 of the crew's work. Every member has a run of its own, so that it reads memory in order, and then
// takes what others have left, so that one that was descheduled holds nobody up for long.
template <class Work>
void share(const Crew& crew, Claim* claimed, int64_t n, Work work) {
  if (crew.size == 1) {
    for (int64_t unit = 0; unit < n; unit++) work(unit);
    return;
  }
  for (int i = 0; i < crew.size; i++) {
    const int owner = (crew.member + i) % crew.size;
    const int64_t first = n * owner / crew.size, end = n * (owner + 1) / crew.size;
    std::atomic<int>& taken = claimed[owner].taken;
    if (i > 0 && first + taken.load(std::memory_order_relaxed) >= end) continue;
    for (int64_t unit; (unit = first + taken.fetch_add(1, std::memory_order_relaxed)) < end;) work(unit);
  }
}

}  // namespace

Pass::Pass(CpuWorkspace& workspace, const cqil_forward& request)
    : workspace(workspace),
      request(request),
      weights_(workspace.model.weights),
      shape_(weights_.shape),
      kernels_(workspace.model.kernels),
      rounded_(workspace.model.rounded),
      tokens_(static_cast<int64_t>(workspace.tokens.size())),
      dim_(shape_.dim) {}

void Pass::embed(const Crew& crew) const {
  const cqil_tensor& table = weights_.token_embedding;
  const int64_t bytes = row_bytes(table.dtype, table.cols);
  for (int64_t t = crew.member; t < tokens_; t += crew.size) {
    const uint8_t* row = static_cast<const uint8_t*>(table.data) + workspace.tokens[static_cast<size_t>(t)].id * bytes;
    float* x = workspace.x.get() + t * workspace.dim_stride;
    kernels_.unpack[table.dtype](row, bytes, 1, table.cols, x);
    if (const float scale = shape_.formula.embedding_scale)
      for (int64_t i = 0; i < dim_; i++) x[i] *= scale;
  }
}

void Pass::rotate(float* head, int rope, int64_t position) const {
  const int64_t half = shape_.rope_dim / 2, at = (position * shape_.n_ropes + rope) * half;
  const float* cos = workspace.rope_cos.get() + at;
  const float* sin = workspace.rope_sin.get() + at;
  for (int64_t i = 0; i < half; i++) {
    float& a = head[shape_.rope_interleaved ? 2 * i : i];
    float& b = head[shape_.rope_interleaved ? 2 * i + 1 : i + half];
    const float rotated = a * cos[i] - b * sin[i];
    b = a * sin[i] + b * cos[i];
    a = rotated;
  }
}

void Pass::finish_head(const Heads& heads, int64_t head, int64_t token, const float* product, float* out) const {
  const cqil_layer& l = weights_.layers[heads.layer];
  const cqil_tensor& bias = heads.kind == Heads::kQueries ? l.bq : heads.kind == Heads::kKeys ? l.bk : l.bv;
  std::memcpy(out, product, static_cast<size_t>(shape_.head_dim) * sizeof(float));
  if (bias.data) kernels_.add(out, floats(bias) + head * shape_.head_dim, shape_.head_dim);
  if (heads.kind == Heads::kValues) return;
  const cqil_tensor& norm = heads.kind == Heads::kQueries ? l.q_norm : l.k_norm;
  if (norm.data) kernels_.rms_norm(out, floats(norm), shape_.head_dim, shape_.own_norm_eps, out);
  if (l.rope != CQIL_NO_ROPE) rotate(out, l.rope, workspace.tokens[static_cast<size_t>(token)].position);
}

void Pass::keep_heads(const Heads& heads, const float* products, float* scratch_head) const {
  const int64_t hd = shape_.head_dim, stride = heads.n * hd;
  for (int64_t head = heads.first; head < heads.first + heads.n; head++)
    for (int64_t t = 0; t < tokens_; t++) {
      const float* product = products + t * stride + (head - heads.first) * hd;
      if (heads.kind == Heads::kQueries) {
        float* query = lane_row(workspace.query, workspace.query_stride, heads.lane, t) + head * workspace.head_stride;
        finish_head(heads, head, t, product, query);
        continue;
      }
      finish_head(heads, head, t, product, scratch_head);
      const TokenPlace& place = workspace.tokens[static_cast<size_t>(t)];
      const CpuCache& cache = *place.cache;
      uint8_t* row = heads.kind == Heads::kKeys ? cache.key(heads.layer, head, place.position)
                                                : cache.value(heads.layer, head, place.position);
      kernels_.store_kv[cache.kv_dtype](scratch_head, cache.head_stride, row);
    }
}

int64_t Pass::heads_in_unit(const Crew& crew, int64_t n_heads) const {
  const int64_t whole = heads_per_unit(workspace.model);
  const int64_t wanted = tokens_ > 1 ? 1 : crew.size == 1 ? n_heads : n_heads / (2 * crew.size);
  return std::max<int64_t>(1, (wanted + whole - 1) / whole) * whole;
}

// Units are heads; several of one matrix when there is one token, as memory serves longer runs of rows better, and
// where only several make the rows that products can begin at.
void Pass::qkv(const Crew& crew, const Lanes& lanes) const {
  norm_all(crew, lanes, false);
  const int64_t hd = shape_.head_dim, q = n_heads(lanes), kv = n_kv_heads(lanes), most = heads_in_unit(crew, q);
  const int64_t q_units = (q + most - 1) / most, kv_units = (kv + most - 1) / most, units = q_units + 2 * kv_units;
  int held_lane = -1;
  share(crew, lanes.claimed, lanes.n_lanes * units, [&](int64_t unit) {
    const int lane = lanes.first_lane + static_cast<int>(unit / units), layer = lanes.first_layer + lane;
    const int64_t part = unit % units;
    const Heads::Kind kind = part < q_units              ? Heads::kQueries
                             : part < q_units + kv_units ? Heads::kKeys
                                                         : Heads::kValues;
    const int64_t first = (part - (kind == Heads::kQueries ? 0 : q_units + (kind - Heads::kKeys) * kv_units)) * most;
    const Heads heads = {kind, layer, lane, first, std::min(most, (kind == Heads::kQueries ? q : kv) - first)};
    const cqil_layer& l = weights_.layers[layer];
    const cqil_tensor& matrix = kind == Heads::kQueries ? l.wq : kind == Heads::kKeys ? l.wk : l.wv;
    const Input x = norm_of(crew, lanes, lane, false, held_lane);
    float* tile = crew.scratch->tile.get();
    product({matrix, first * hd, heads.n * hd}, x, {tile, heads.n * hd}, *crew.scratch);
    keep_heads(heads, tile, crew.scratch->head.get());
  });
}

// Units are heads and blocks of a row's tokens; where a row has one token, the heads that share keys and values go
// together.
void Pass::attention(const Crew& crew, const Lanes& lanes) const {
  const int64_t each = workspace.attention_units, units = n_kv_heads(lanes) * each;
  share(crew, lanes.claimed, lanes.n_lanes * units, [&](int64_t unit) {
    const int lane = lanes.first_lane + static_cast<int>(unit / units);
    const int64_t kv_head = unit % units / each, part = unit % each;
    const auto after = std::upper_bound(workspace.rows.begin(), workspace.rows.end(), part,
                                        [](int64_t at, const RowPlace& place) { return at < place.first_unit; });
    attend(crew, lanes.first_layer + lane, lane, after[-1], kv_head, part - after[-1].first_unit);
  });
}

void Pass::attend(const Crew& crew, int64_t layer, int lane, const RowPlace& place, int64_t kv_head,
                  int64_t unit) const {
  const int64_t heads_per_kv = shape_.n_heads / shape_.n_kv_heads, tokens = place.row->n_ids;
  const bool one = tokens == 1;
  const int64_t part = unit % place.parts;
  const CpuCache& cache = *place.cache;
  AttendArgs args;
  args.keys = cache.key(layer, kv_head, 0);
  args.values = cache.value(layer, kv_head, 0);
  args.stride = cache.head_stride;
  const cqil_formula& formula = shape_.formula;
  args.window = weights_.layers[layer].window;
  args.scale =
      formula.attention_scale ? formula.attention_scale : 1.0f / std::sqrt(static_cast<float>(shape_.head_dim));
  args.cap = formula.attention_cap;
  args.scores = crew.scratch->scores.get();
  args.scores_stride = workspace.scores_stride;
  args.head_dim = shape_.head_dim;
  args.step = one ? 0 : 1;
  args.query_stride = one ? workspace.head_stride : workspace.query_stride;
  args.out_stride = one ? shape_.head_dim : workspace.attention_stride;
  const int64_t first = part * (one ? kAttendQueries : kTokensPerUnit);
  const int64_t end =
      one ? std::min<int64_t>(heads_per_kv, first + kAttendQueries) : std::min(tokens, first + kTokensPerUnit);
  for (int64_t i = first; i < end; i += kAttendQueries) {
    const int64_t head = kv_head * heads_per_kv + (one ? i : unit / place.parts), token = one ? 0 : i;
    args.n_queries = static_cast<int32_t>(std::min<int64_t>(kAttendQueries, end - i));
    args.last = static_cast<int32_t>(place.row->position + token);
    args.query = lane_row(workspace.query, workspace.query_stride, lane, place.first_token + token) +
                 head * workspace.head_stride;
    args.out = lane_row(workspace.attention, workspace.attention_stride, lane, place.first_token + token) +
               head * shape_.head_dim;
    kernels_.attend[cache.kv_dtype](args);
  }
}

void Pass::attention_out(const Crew& crew, const Lanes& lanes) const {
  round_all(crew, lanes, workspace.attention, workspace.attention_stride, n_heads(lanes) * shape_.head_dim);
  const int64_t rows = rows_per_unit(dim_, crew.size), units = (dim_ + rows - 1) / rows;
  share(crew, lanes.claimed, lanes.n_lanes * units, [&](int64_t unit) {
    const int lane = lanes.first_lane + static_cast<int>(unit / units);
    const int64_t first = unit % units * rows, n = std::min(rows, dim_ - first);
    const cqil_layer& l = weights_.layers[lanes.first_layer + lane];
    float* out = lane_row(workspace.attention_out, workspace.dim_stride, lane, 0) + first;
    product({l.wo, first, n}, input_of(crew, workspace.attention, workspace.attention_stride, lane),
            {out, workspace.dim_stride}, *crew.scratch);
    if (l.bo.data)
      for (int64_t t = 0; t < tokens_; t++) kernels_.add(out + t * workspace.dim_stride, floats(l.bo) + first, n);
  });
}

void Pass::gate_up(const Crew& crew, const Lanes& lanes) const {
  norm_all(crew, lanes, true);
  const int64_t hidden = n_hidden(lanes);
  const int64_t rows = rows_per_unit(hidden, crew.size), units = (hidden + rows - 1) / rows;
  int held_lane = -1;
  share(crew, lanes.claimed, lanes.n_lanes * units, [&](int64_t unit) {
    const int lane = lanes.first_lane + static_cast<int>(unit / units);
    const int64_t first = unit % units * rows, n = std::min(rows, hidden - first);
    const cqil_layer& l = weights_.layers[lanes.first_layer + lane];
    const Input x = norm_of(crew, lanes, lane, true, held_lane);
    float* gate = lane_row(workspace.gate_up, workspace.hidden_stride, lane, 0) + first;
    float* up = crew.scratch->tile.get();
    product({l.w_gate, first, n}, x, {gate, workspace.hidden_stride}, *crew.scratch);
    product({l.w_up, first, n}, x, {up, n}, *crew.scratch);
    const auto activate = kernels_.activate_mul[shape_.formula.activation];
    for (int64_t t = 0; t < tokens_; t++) activate(gate + t * workspace.hidden_stride, up + t * n, n);
  });
}

void Pass::post_norm(const Crew& crew, const Lanes& lanes, const Floats& buffer, cqil_tensor cqil_layer::* norm) const {
  for (int64_t i = crew.member; i < lanes.n_lanes * tokens_; i += crew.size) {
    const int lane = lanes.first_lane + static_cast<int>(i / tokens_);
    float* row = lane_row(buffer, workspace.dim_stride, lane, i % tokens_);
    kernels_.rms_norm(row, floats(weights_.layers[lanes.first_layer + lane].*norm), dim_, shape_.own_norm_eps, row);
  }
}

void Pass::attention_post_norm(const Crew& crew, const Lanes& lanes) const {
  post_norm(crew, lanes, workspace.attention_out, &cqil_layer::attention_post_norm);
}

void Pass::mlp_post_norm(const Crew& crew, const Lanes& lanes) const {
  post_norm(crew, lanes, workspace.mlp_out, &cqil_layer::mlp_post_norm);
}

// x gains a_j, and b_j where the bypass joins the residual, lane by lane.
void Pass::add_residual(float* x, int64_t token, int64_t first, int64_t n, int n_lanes) const {
  for (int lane = 0; lane < n_lanes; lane++) {
    kernels_.add(x, lane_row(workspace.attention_out, workspace.dim_stride, lane, token) + first, n);
    if (workspace.program.bypass_residual) add_bypass(x, lane, token, first, n);
  }
}

void Pass::down(const Crew& crew, const Lanes& lanes) const {
  round_all(crew, lanes, workspace.gate_up, workspace.hidden_stride, n_hidden(lanes));
  const int64_t rows = rows_per_unit(dim_, crew.size), units = (dim_ + rows - 1) / rows;
  share(crew, lanes.claimed, units, [&](int64_t unit) {
    const int64_t first = unit * rows, n = std::min(rows, dim_ - first);
    float* x = workspace.x.get() + first;
    for (int64_t t = 0; t < tokens_; t++) add_residual(x + t * workspace.dim_stride, t, first, n, lanes.n_lanes);
    for (int lane = 0; lane < lanes.n_lanes; lane++) {
      float* tile = crew.scratch->tile.get();
      product({weights_.layers[lanes.first_layer + lane].w_down, first, n},
              input_of(crew, workspace.gate_up, workspace.hidden_stride, lane), {tile, n}, *crew.scratch);
      for (int64_t t = 0; t < tokens_; t++) kernels_.add(x + t * workspace.dim_stride, tile + t * n, n);
    }
  });
}

void Pass::down_apart(const Crew& crew, const Lanes& lanes) const {
  round_all(crew, lanes, workspace.gate_up, workspace.hidden_stride, n_hidden(lanes));
  const int64_t rows = rows_per_unit(dim_, crew.size), units = (dim_ + rows - 1) / rows;
  share(crew, lanes.claimed, lanes.n_lanes * units, [&](int64_t unit) {
    const int lane = lanes.first_lane + static_cast<int>(unit / units);
    const int64_t first = unit % units * rows, n = std::min(rows, dim_ - first);
    float* out = lane_row(workspace.mlp_out, workspace.dim_stride, lane, 0) + first;
    product({weights_.layers[lanes.first_layer + lane].w_down, first, n},
            input_of(crew, workspace.gate_up, workspace.hidden_stride, lane), {out, workspace.dim_stride},
            *crew.scratch);
  });
}

void Pass::join(const Crew& crew, int n_lanes) const {
  const int64_t first = dim_ * crew.member / crew.size, n = dim_ * (crew.member + 1) / crew.size - first;
  for (int64_t t = 0; t < tokens_; t++) {
    float* x = workspace.x.get() + t * workspace.dim_stride + first;
    add_residual(x, t, first, n, n_lanes);
    for (int lane = 0; lane < n_lanes; lane++)
      kernels_.add(x, lane_row(workspace.mlp_out, workspace.dim_stride, lane, t) + first, n);
  }
}

void Pass::record(const Crew& crew, int first_layer, int n_lanes) const {
  // This is the slice of join(), so this member alone changes what it copies.
  const int64_t first = dim_ * crew.member / crew.size, n = dim_ * (crew.member + 1) / crew.size - first;
  for (const RowPlace& place : workspace.rows) {
    if (place.row->output != CQIL_OUTPUT_TRACE || !place.row->result) continue;
    const int64_t tokens = place.row->n_ids;
    for (int lane = 0; lane < n_lanes; lane++) {
      float* layer = place.row->result + (first_layer + lane) * 3 * tokens * dim_ + first;
      for (int64_t t = 0; t < tokens; t++) {
        const int64_t token = place.first_token + t;
        const float* parts[] = {workspace.x.get() + token * workspace.dim_stride,
                                lane_row(workspace.attention_out, workspace.dim_stride, lane, token),
                                lane_row(workspace.mlp_out, workspace.dim_stride, lane, token)};
        for (int64_t i = 0; i < 3; i++)
          std::memcpy(layer + (i * tokens + t) * dim_, parts[i] + first, static_cast<size_t>(n) * sizeof(float));
      }
    }
  }
}

void Pass::give(const HeadPlace& place, const float* logits) const {
  const int64_t vocab = shape_.vocab_size;
  if (place.score) *place.score = static_cast<float>(logits[place.target] - kernels_.log_sum_exp(logits, vocab));
  if (place.logits && place.logits != logits)
    std::memcpy(place.logits, logits, static_cast<size_t>(vocab) * sizeof(float));
  if (!place.shortlist) return;
  const bool finite = list_highest(logits, shape_.vocab_size, *place.shortlist);
  place.shortlist->log_sum_exp =
      finite ? kernels_.log_sum_exp(logits, vocab) : std::numeric_limits<double>::quiet_NaN();
}

void Pass::head_norms(const Crew& crew, const HeadPlace* places, int64_t n) const {
  float* norm = workspace.norm.get();
  uint8_t* rounded = workspace.rounded.get();
  for (int64_t t = crew.member; t < n; t += crew.size) {
    float* row = norm + t * workspace.dim_stride;
    kernels_.rms_norm(workspace.x.get() + places[t].token * workspace.dim_stride, floats(weights_.output_norm), dim_,
                      shape_.norm_eps, row);
    round_one(row, dim_, rounded + t * workspace.rounded_stride);
  }
}

void Pass::head_products(const Crew& crew, Claim* claimed, int64_t n, float* logits) const {
  const int64_t vocab = shape_.vocab_size;
  const Input input = {{workspace.norm.get(), workspace.dim_stride, n},
                       {workspace.rounded.get(), workspace.rounded_stride, n}};
  const int64_t own = weights_.output.rows,
                begin = workspace.model.ranks ? workspace.model.ranks->vocabulary[workspace.model.ranks->rank] : 0;
  const int64_t rows = std::max<int64_t>(kMostPanelRows, own / (32 * crew.size) / kPanelRows * kPanelRows),
                units = (own + rows - 1) / rows;
  share(crew, claimed, units, [&](int64_t unit) {
    const int64_t first = unit * rows, n_rows = std::min(rows, own - first);
    float* to = logits + begin + first;
    product({weights_.output, first, n_rows}, input, {to, vocab}, *crew.scratch);
    if (const float cap = shape_.formula.logit_cap)
      for (int64_t t = 0; t < n; t++) kernels_.cap(to + t * vocab, n_rows, cap);
  });
}

void Pass::head(const Crew& crew, Claim* claimed) const {
  const int64_t vocab = shape_.vocab_size, wanted = static_cast<int64_t>(workspace.heads.size());
  for (int64_t first = 0; first < wanted; first += kHeadRows) {
    const int64_t n = std::min(kHeadRows, wanted - first);
    const HeadPlace* places = workspace.heads.data() + first;
    head_norms(crew, places, n);
    claimed[crew.member].taken.store(0, std::memory_order_relaxed);
    crew.wait();

    // Logits that are to stand one after another are computed where they go.
    bool direct = true;
    for (int64_t t = 0; t < n; t++)
      direct = direct && places[t].logits && places[t].logits == places[0].logits + t * vocab;
    float* logits = direct ? places[0].logits : workspace.logits.get();
    head_products(crew, claimed, n, logits);
    if (workspace.reduction) {
      crew.wait();
      if (crew.member == 0) workspace.reduction->gather_logits(logits, n, vocab);
    }
    const bool last = first + n == wanted;
    if (direct && last) return;
    crew.wait();
    if (direct) continue;
    for (int64_t t = crew.member; t < n; t += crew.size) give(places[t], logits + t * vocab);
    if (!last) crew.wait();
  }
}

bool Pass::share_attention(const Lanes& lanes) const {
  add_exchanged(lanes, Part::kAttention);
  return exchange();
}

bool Pass::reduce(const Lanes& lanes) const {
  if (reduces_attention(*workspace.model.ranks, lanes.first_layer, lanes.n_lanes, workspace.program.bypass))
    add_exchanged(lanes, Part::kAttention);
  add_exchanged(lanes, Part::kMlp);
  return exchange();
}

void Pass::add_exchanged(const Lanes& lanes, Part part) const {
  const Floats& buffer = part == Part::kMlp ? workspace.mlp_out : workspace.attention_out;
  for (int lane = lanes.first_lane; lane < lanes.first_lane + lanes.n_lanes; lane++) {
    const int layer = lanes.first_layer + lane;
    if (held(*workspace.model.ranks, layer, part) == Held::kEverywhere) continue;
    workspace.exchanged.push_back({layer, part, lane_row(buffer, workspace.dim_stride, lane, 0)});
  }
}

bool Pass::exchange() const {
  const bool cancelled = workspace.model.ranks->rank == 0 && cqil_cancelled(&request);
  const bool goes_on = workspace.reduction->reduce(workspace.exchanged, tokens_, workspace.dim_stride, cancelled);
  workspace.exchanged.clear();
  return goes_on;
}

}  // namespace cqil
