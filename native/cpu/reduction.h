// What ranks exchange within a forward on the CPU: attention and MLP outputs of lanes, and logits.
#pragma once
#include <string>
#include <vector>

#include "../backend/backend.h"
#include "../core/held.h"
#include "buffer.h"

namespace cqil {

// One thread of a forward makes these calls while the others wait. After a call that returned false the forward ends:
// every rank has stopped at the same exchange, or one is lost; status() says which.
class Reduction {
 public:
  // `ranks` outlives this object.
  Reduction(const cqil_ranks& ranks, int64_t dim) : ranks_(ranks), dim_(dim) {}

  // Called before each forward.
  void begin() { status_ = CQIL_OK; }
  cqil_status status() const { return status_; }
  const char* text() const { return text_.c_str(); }

  // What ranks have computed of a lane, a row for each token. Where several ranks hold slices of its layer, their rows
  // are summed.
  struct Piece {
    int32_t layer;
    Part part;
    float* rows;  // [n_tokens, stride]
  };
  // cancelled: whether the forward is to end; only rank 0's counts.
  bool reduce(const std::vector<Piece>& pieces, int64_t n_tokens, int64_t stride, bool cancelled);
  // logits: [n_tokens, vocab], of which every rank has its part.
  bool gather_logits(float* logits, int64_t n_tokens, int64_t vocab);

 private:
  bool holds(int32_t rank, const Piece& piece) const;
  bool gather(int64_t floats, bool cancelled);
  // n rows of `from` to rows of `to`, which are stride apart: added, or copied.
  void take(const float* from, int64_t n, float* to, int64_t stride, bool adds) const;
  void reserve(int64_t floats);
  float* mine() { return out_.get() + kHeader; }
  const float* of(int32_t rank, int64_t floats) const { return all_.get() + rank * (kHeader + floats) + kHeader; }

  // Floats before the values of a message. The first of them, from rank 0, says whether the forward is cancelled.
  static constexpr int64_t kHeader = 16;

  const cqil_ranks& ranks_;
  const int64_t dim_;
  cqil_status status_ = CQIL_OK;
  std::string text_;
  Floats out_, all_;
  int64_t room_ = 0;  // how many values of a rank both buffers can hold
};

}  // namespace cqil
