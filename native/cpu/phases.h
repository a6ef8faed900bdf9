// The phases of a program on the CPU. Each is called by every member of a crew and returns when this member finds no
// work left; the caller waits for the others. The shared formula is in DESIGN terms:
//   a_j = A_j(x);  b_j = sum of up to D earlier a in the group;  m_j = M_j(x + a_j + b_j)
//   x += sum of a_j [+ b_j] + m_j
// where A_j and M_j end with their post-norm in models that have one.
#pragma once
#include "workspace.h"

namespace cqil {

// The threads that share a piece of work.
struct Crew {
  int member;        // index in the crew
  int size;          // members
  Barrier* barrier;  // theirs; unused when size is 1
  Scratch* scratch;  // this member's own
  void wait() const {
    if (size > 1) barrier->wait();
  }
};

// Lanes [first_lane, first_lane + n_lanes) of the group that starts at layer first_layer.
struct Lanes {
  int first_layer;
  int first_lane;
  int n_lanes;
  Claim* claimed;  // [crew size] units taken of each member's run
};

// Rows [first, first + n) of a matrix.
struct MatrixRows {
  const cqil_tensor& matrix;
  int64_t first, n;
};

// What a product multiplies weights with: a vector for each token and, where activations are rounded, its rounded form.
struct Input {
  TokenVectors<float> x;
  TokenVectors<uint8_t> rounded;  // the workspace's rounded_stride apart
};

// Heads [first, first + n) of a layer's queries, keys or values.
struct Heads {
  enum Kind { kQueries, kKeys, kValues } kind;
  int layer, lane;
  int64_t first, n;
};

inline const float* floats(const cqil_tensor& vector) { return static_cast<const float*>(vector.data); }

// One forward pass: the tokens of all its rows, and the shorthand the phases need. Only appending to a cache and
// attending over it look at whose token it is.
class Pass {
 public:
  // The workspace must have taken the request, see CpuWorkspace::take.
  Pass(CpuWorkspace& workspace, const cqil_forward& request);

  void embed(const Crew& crew) const;
  void qkv(const Crew& crew, const Lanes& lanes) const;
  void attention(const Crew& crew, const Lanes& lanes) const;
  void attention_out(const Crew& crew, const Lanes& lanes) const;
  // What attention_out() left becomes a_j.
  void attention_post_norm(const Crew& crew, const Lanes& lanes) const;
  void gate_up(const Crew& crew, const Lanes& lanes) const;
  // The whole group at once: x gains every a_j and m_j.
  void down(const Crew& crew, const Lanes& lanes) const;
  // Lanes apart: m_j is kept, and join() adds them up in the order of down(), to the same bits.
  void down_apart(const Crew& crew, const Lanes& lanes) const;
  // What down_apart() left becomes m_j.
  void mlp_post_norm(const Crew& crew, const Lanes& lanes) const;
  void join(const Crew& crew, int n_lanes) const;
  // Between the two: copies x, still the group's input, and each a_j and m_j to the trace.
  void record(const Crew& crew, int first_layer, int n_lanes) const;
  void head(const Crew& crew, Claim* claimed) const;
  // Exchange outputs with other ranks; false ends the forward, see Reduction.
  bool share_attention(const Lanes& lanes) const;
  bool reduce(const Lanes& lanes) const;

  CpuWorkspace& workspace;
  const cqil_forward& request;

 private:
  // y: the product of each row of w with each token's input.
  void product(const MatrixRows& w, const Input& input, const Products& y, const Scratch& scratch) const;
  // Unit `unit` of a row's attention with a key/value head.
  void attend(const Crew& crew, int64_t layer, int lane, const RowPlace& place, int64_t kv_head, int64_t unit) const;
  void add_residual(float* x, int64_t token, int64_t first, int64_t n, int n_lanes) const;
  void add_bypass(float* y, int lane, int64_t token, int64_t first, int64_t n) const;
  // The normalised inputs of the lanes, by the whole crew, when there are several tokens; waits for it.
  void norm_all(const Crew& crew, const Lanes& lanes, bool mlp) const;
  // The normalised input of one lane and token.
  void norm_one(int layer, int lane, int64_t token, bool mlp, float* out) const;
  // A lane's normalised input, computed into own scratch when there is one token.
  Input norm_of(const Crew& crew, const Lanes& lanes, int lane, bool mlp, int& held_lane) const;
  // Rounds the first n values of the lanes' rows where activations are rounded: with one token every member for itself,
  // with several the whole crew, for which it waits.
  void round_all(const Crew& crew, const Lanes& lanes, const Floats& buffer, int64_t stride, int64_t n) const;
  void round_one(const float* x, int64_t n, uint8_t* row) const;
  Input input_of(const Crew& crew, const Floats& buffer, int64_t stride, int lane) const {
    return {{lane_row(buffer, stride, lane, 0), stride, tokens_},
            {rounded_row_of(crew, lane, 0), workspace.rounded_stride, tokens_}};
  }
  void add_exchanged(const Lanes& lanes, Part part) const;
  bool exchange() const;
  // The output projection's normalised inputs, of n tokens, and then its products with them: [n, vocab].
  void head_norms(const Crew& crew, const HeadPlace* places, int64_t n) const;
  void head_products(const Crew& crew, Claim* claimed, int64_t n, float* logits) const;
  // What is wanted of a token, from its logits.
  void give(const HeadPlace& place, const float* logits) const;
  int64_t heads_in_unit(const Crew& crew, int64_t n_heads) const;
  // Finishes heads, given their products [tokens, heads.n * head_dim]. Puts queries into the workspace, keys and values
  // into the caches. scratch_head: [head_stride]
  void keep_heads(const Heads& heads, const float* products, float* scratch_head) const;
  // Finishes one head of a query, key or value: adds its bias and applies its norm, where it has them, and rotates it.
  void finish_head(const Heads& heads, int64_t head, int64_t token, const float* product, float* out) const;
  void rotate(float* head, int rope, int64_t position) const;
  // Of each lane and token, in place.
  void post_norm(const Crew& crew, const Lanes& lanes, const Floats& buffer, cqil_tensor cqil_layer::* norm) const;
  int64_t rows_per_unit(int64_t rows, int crew_size) const;

  float* lane_row(const Floats& buffer, int64_t stride, int lane, int64_t token) const {
    return buffer.get() + (lane * workspace.batch + token) * stride;
  }
  uint8_t* rounded_row_of(const Crew& crew, int lane, int64_t token) const {
    if (tokens_ == 1) return crew.scratch->rounded.get() + lane * workspace.rounded_stride;
    return workspace.rounded.get() + (lane * workspace.batch + token) * workspace.rounded_stride;
  }

  // How much this rank holds of each of these lanes; it is equal for all of them.
  int64_t n_heads(const Lanes& lanes) const { return first(lanes).wq.rows / shape_.head_dim; }
  int64_t n_kv_heads(const Lanes& lanes) const { return first(lanes).wk.rows / shape_.head_dim; }
  int64_t n_hidden(const Lanes& lanes) const { return first(lanes).w_gate.rows; }
  const cqil_layer& first(const Lanes& lanes) const { return weights_.layers[lanes.first_layer + lanes.first_lane]; }

  const cqil_weights& weights_;
  const cqil_shape& shape_;
  const Kernels& kernels_;
  const RoundedKernels* const rounded_;
  const int64_t tokens_;
  const int64_t dim_;
};

}  // namespace cqil
