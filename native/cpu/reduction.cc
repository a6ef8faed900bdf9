#include "reduction.h"

#include <algorithm>
#include <cstring>

namespace cqil {
namespace {

// About how many floats a message has. Longer ones go piece by piece, as they would not stay in a processor's cache.
constexpr int64_t kMessage = 64 * 1024;

}  // namespace

bool Reduction::holds(int32_t rank, const Piece& piece) const {
  return cqil::holds(ranks_, rank, piece.layer, piece.part);
}

bool Reduction::gather(int64_t floats, bool cancelled) {
  out_.get()[0] = cancelled ? 1.0f : 0.0f;
  cqil_exchange_failure failure = {};
  const cqil_exchange_status status =
      ranks_.exchange->gather(ranks_.end, out_.get(), all_.get(),
                              (kHeader + floats) * static_cast<int64_t>(sizeof(float)), ranks_.patience_ns, &failure);
  if (status != CQIL_EXCHANGE_OK) {
    status_ = status == CQIL_EXCHANGE_OUT_OF_STEP || status == CQIL_EXCHANGE_INTERNAL ? CQIL_INTERNAL : CQIL_RANK_LOST;
    text_ = failure.text;
  } else if (all_.get()[0] != 0) {
    status_ = CQIL_ABORTED;
  }
  return status_ == CQIL_OK;
}

bool Reduction::reduce(const std::vector<Piece>& pieces, int64_t n_tokens, int64_t stride, bool cancelled) {
  int64_t most = 0;
  for (int32_t rank = 0; rank < ranks_.n_ranks; rank++)
    most = std::max<int64_t>(
        most, std::count_if(pieces.begin(), pieces.end(), [&](const Piece& piece) { return holds(rank, piece); }));
  const int64_t together = std::clamp<int64_t>(kMessage / (most * dim_), 1, n_tokens);
  reserve(most * together * dim_);
  for (int64_t first = 0; first < n_tokens; first += together) {
    const int64_t n = std::min(together, n_tokens - first), each = n * dim_;
    float* to = mine();
    for (const Piece& piece : pieces) {
      if (!holds(ranks_.rank, piece)) continue;
      for (int64_t t = 0; t < n; t++, to += dim_)
        std::memcpy(to, piece.rows + (first + t) * stride, static_cast<size_t>(dim_) * sizeof(float));
    }
    if (!gather(most * each, cancelled)) return false;
    int64_t taken[CQIL_MAX_RANKS] = {};
    for (const Piece& piece : pieces) {
      bool begun = false;
      for (int32_t rank = 0; rank < ranks_.n_ranks; rank++) {
        if (!holds(rank, piece)) continue;
        take(of(rank, most * each) + taken[rank]++ * each, n, piece.rows + first * stride, stride, begun);
        begun = true;
      }
    }
  }
  return true;
}

void Reduction::take(const float* from, int64_t n, float* to, int64_t stride, bool adds) const {
  for (int64_t t = 0; t < n; t++, from += dim_, to += stride) {
    if (adds)
      for (int64_t i = 0; i < dim_; i++) to[i] += from[i];
    else std::memcpy(to, from, static_cast<size_t>(dim_) * sizeof(float));
  }
}

bool Reduction::gather_logits(float* logits, int64_t n_tokens, int64_t vocab) {
  int64_t most = 0;
  for (int32_t rank = 0; rank < ranks_.n_ranks; rank++)
    most = std::max<int64_t>(most, ranks_.vocabulary[rank + 1] - ranks_.vocabulary[rank]);
  const auto copy = [](float* to, const float* from, int64_t n) {
    std::memcpy(to, from, static_cast<size_t>(n) * sizeof(float));
  };
  reserve(most * n_tokens);
  const int32_t own = ranks_.vocabulary[ranks_.rank], own_end = ranks_.vocabulary[ranks_.rank + 1];
  for (int64_t t = 0; t < n_tokens; t++) copy(mine() + t * most, logits + t * vocab + own, own_end - own);
  if (!gather(most * n_tokens, false)) return false;
  for (int32_t rank = 0; rank < ranks_.n_ranks; rank++) {
    const int32_t first = ranks_.vocabulary[rank], end = ranks_.vocabulary[rank + 1];
    if (rank == ranks_.rank) continue;
    for (int64_t t = 0; t < n_tokens; t++)
      copy(logits + t * vocab + first, of(rank, most * n_tokens) + t * most, end - first);
  }
  return true;
}

void Reduction::reserve(int64_t floats) {
  if (floats <= room_) return;
  out_ = Floats(static_cast<size_t>(kHeader + floats));
  all_ = Floats(static_cast<size_t>(ranks_.n_ranks * (kHeader + floats)));
  room_ = floats;
}

}  // namespace cqil
