// Which ranks hold a part of a layer, read from the table of shares that backends are given too.
#pragma once
#include "../backend/backend.h"

namespace cqil {

enum class Part { kAttention, kMlp };

// Where a part of a layer is held.
enum class Held {
  kEverywhere,  // whole, on every rank
  kOnOne,       // whole, on one rank
  kInSlices,    // by several ranks, whose results are added up in the order of ranks
};

// The size of a part in a share: key/value heads, or values of the hidden vector.
inline int32_t size_of(const cqil_share& share, Part part) {
  return part == Part::kAttention ? share.n_kv_heads : share.n_hidden;
}

inline const cqil_share& share_on(const cqil_ranks& ranks, int32_t rank, int32_t layer) {
  return ranks.shares[static_cast<int64_t>(rank) * ranks.n_layers + layer];
}

inline int32_t size_on(const cqil_ranks& ranks, int32_t rank, int32_t layer, Part part) {
  return size_of(share_on(ranks, rank, layer), part);
}

// Whether a rank holds a part of a layer, whole or a slice of it.
inline bool holds(const cqil_ranks& ranks, int32_t rank, int32_t layer, Part part) {
  return size_on(ranks, rank, layer, part) > 0;
}

inline Held held(const cqil_ranks& ranks, int32_t layer, Part part) {
  int32_t holders = 0, whole = 0;
  for (int32_t rank = 0; rank < ranks.n_ranks; rank++) {
    const int32_t size = size_on(ranks, rank, layer, part);
    holders += size > 0;
    whole += size == size_of(ranks.whole, part);
  }
  return whole == ranks.n_ranks ? Held::kEverywhere : holders == 1 ? Held::kOnOne : Held::kInSlices;
}

// Whether a stage's attention outputs are exchanged together with its MLP outputs, and not before its MLPs. This is so
// where every lane is whole on one rank and no lane reads the attention outputs of another.
inline bool reduces_attention(const cqil_ranks& ranks, int32_t first_layer, int32_t n_lanes, int32_t bypass) {
  if (bypass > 0 && n_lanes > 1) return false;
  for (int32_t layer = first_layer; layer < first_layer + n_lanes; layer++)
    if (held(ranks, layer, Part::kAttention) != Held::kOnOne || held(ranks, layer, Part::kMlp) != Held::kOnOne)
      return false;
  return true;
}

}  // namespace cqil
