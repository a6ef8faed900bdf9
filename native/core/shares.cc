#include "shares.h"

#include <algorithm>
#include <numeric>

#include "dtype.h"
#include "error.h"

namespace cqil {
namespace {

constexpr int32_t kMostRatio = 1 << 16;

// Where n units are cut for ranks of these ratios: [ranks + 1], from 0 to n.
std::vector<int32_t> cut(int64_t n, const std::vector<int32_t>& ratios) {
  const int64_t total = std::accumulate(ratios.begin(), ratios.end(), int64_t{0});
  std::vector<int32_t> ends = {0};
  int64_t sum = 0;
  for (int32_t ratio : ratios) {
    sum += ratio;
    ends.push_back(static_cast<int32_t>(n * sum / total));
  }
  return ends;
}

}  // namespace

Cuts cuts_of(const cqil_weights& weights) {
  const cqil_shape& shape = weights.shape;
  const int64_t columns = static_cast<int64_t>(shape.n_heads / shape.n_kv_heads) * shape.head_dim;
  Cuts cuts = {true, 32};
  for (int32_t i = 0; i < shape.n_layers; i++) {
    const cqil_layer& layer = weights.layers[i];
    cuts.attention = cuts.attention && columns % dtype_info(layer.wo.dtype).block_weights == 0;
    cuts.hidden_unit = std::lcm(cuts.hidden_unit, static_cast<int32_t>(dtype_info(layer.w_down.dtype).block_weights));
  }
  return cuts;
}

Shares::Shares(const Program& program, const cqil_shape& shape, const Cuts& cuts, Split split,
               const std::vector<int32_t>& ratios)
    : n_ranks_(static_cast<int32_t>(ratios.size())),
      n_layers_(shape.n_layers),
      whole_{0, shape.n_kv_heads, 0, shape.hidden_dim} {
  if (n_ranks_ < 1 || n_ranks_ > CQIL_MAX_RANKS)
    throw Error("INVALID_ARGUMENT", "A model is computed by 1 to " + std::to_string(CQIL_MAX_RANKS) + " ranks, not " +
                                        std::to_string(n_ranks_) + ".");
  for (int32_t ratio : ratios)
    if (ratio < 1 || ratio > kMostRatio)
      throw Error("INVALID_ARGUMENT",
                  "A rank's share is " + std::to_string(ratio) + "; expected 1 to " + std::to_string(kMostRatio) + ".");
  if (split != Split::kTensor) stages_ = program.first_layers();

  const cqil_share whole = whole_, none = {0, 0, 0, 0};
  // With fewer heads than ranks, some rank would have no cache. Attention stays whole then: it is the smallest part of
  // a layer.
  const bool cut_attention = cuts.attention && shape.n_kv_heads >= n_ranks_;
  const std::vector<int32_t> heads = cut(shape.n_kv_heads, ratios);
  std::vector<int32_t> hidden = cut(shape.hidden_dim / cuts.hidden_unit, ratios);
  for (int32_t& end : hidden) end *= cuts.hidden_unit;
  hidden.back() = shape.hidden_dim;
  auto slice = [&](size_t rank) {
    cqil_share share = whole;
    if (cut_attention) share.first_kv_head = heads[rank], share.n_kv_heads = heads[rank + 1] - heads[rank];
    share.first_hidden = hidden[rank];
    share.n_hidden = hidden[rank + 1] - hidden[rank];
    return share;
  };

  shares_.resize(ratios.size() * static_cast<size_t>(n_layers_));
  for (const cqil_phase& phase : program.phases) {
    if (phase.kind != CQIL_QKV) continue;
    const bool group = phase.n_lanes > 1;
    const bool lanes = group && (split == Split::kLanes || (split == Split::kHybrid && phase.n_lanes % n_ranks_ == 0));
    const std::vector<int32_t> runs = cut(phase.n_lanes, ratios);
    for (size_t rank = 0; rank < ratios.size(); rank++)
      for (int32_t lane = 0; lane < phase.n_lanes; lane++)
        shares_[rank * static_cast<size_t>(n_layers_) + static_cast<size_t>(phase.first_layer + lane)] =
            lanes                    ? (runs[rank] <= lane && lane < runs[rank + 1] ? whole : none)
            : split == Split::kLanes ? whole
                                     : slice(rank);
  }

  vocabulary_ = cut(shape.vocab_size / CQIL_PREPARED_ROWS, ratios);
  for (int32_t& end : vocabulary_) end *= CQIL_PREPARED_ROWS;
  vocabulary_.back() = shape.vocab_size;
}

cqil_ranks Shares::view(int32_t rank) const {
  return {rank, n_ranks_, whole_, shares_.data(), n_layers_, vocabulary_.data(), nullptr, nullptr, 0};
}

void Shares::expect_serves(const Program& program) const {
  if (stages_.empty() || program.first_layers() == stages_) return;
  throw Error(
      "INVALID_PLAN",
      "The ranks hold the lanes of another plan: with split \"lanes\" or \"hybrid\" a model computes the plan it "
      "was loaded for; \"tensor\" takes any.");
}

}  // namespace cqil
