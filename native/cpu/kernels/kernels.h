// The CPU's arithmetic as one table of single-threaded functions per instruction set. Which rows, heads and tokens a
// thread computes is decided in phases.cc; the order in which one value is summed is decided here and depends on
// nothing but the length: sixteen lanes, lane l taking elements l, l + 16, l + 32, …, then a fixed tree. So a product
// has the same bits however rows, tokens and threads are split, and on every instruction set with fused multiply-add.
#pragma once
#include <stdint.h>

#include "../../backend/backend.h"

namespace cqil {

// Rows of activations are padded with zeros to a multiple of this many floats.
constexpr int64_t kPad = 16;
constexpr int64_t padded(int64_t n) { return (n + kPad - 1) / kPad * kPad; }

// Rows of weights unpacked to floats at a time when there is more than one token: what the second cache holds of a wide
// matrix. Panels of narrower values have more rows, up to kMostPanelRows. What a member of a crew takes begins at a
// multiple of kPanelRows.
constexpr int64_t kPanelRows = 16, kMostPanelRows = 32;

// A panel of n unpacked columns holds them in chunks, [n_rows, columns] one after another, so that a few rows of a
// chunk are neighbours and stay in the first cache. Chunks have kPanelCols columns, except the last, which takes a
// small rest with it; not much more than a chunk stays whole, which saves each tile a second turn.
constexpr int64_t kPanelCols = 384;
constexpr int64_t panel_chunk_end(int64_t from, int64_t n, int64_t cols = kPanelCols) {
  const int64_t most = cols + cols / 4;
  return n <= cols * 5 / 3 || n - from <= most ? n : from + cols;
}

// A vector for each of n tokens: [n, stride].
template <class Value>
struct TokenVectors {
  const Value* first;
  int64_t stride;
  int64_t n;
};

// Where the products of rows of weights with several tokens go: row r with token t to first[t * stride + r].
struct Products {
  float* first;
  int64_t stride;
};

// Queries one call of attend takes, so that each key and value is read once for them all: those of consecutive
// positions, or of the heads that share a key/value head.
constexpr int kAttendQueries = 4;

struct AttendArgs {
  const float* query;  // [n_queries, query_stride], each [stride], zero padded
  int64_t query_stride;
  int32_t n_queries;      // 1 … kAttendQueries
  const uint8_t* keys;    // [positions, stride] of this key/value head, in the cache's format
  const uint8_t* values;  // [positions, stride]
  int64_t stride;         // head_dim in whole vectors and whole blocks of the format
  int32_t last, step;     // query t is at position last + step t and attends up to it; step is 0 or 1
  int32_t window;         // positions a query looks back, itself included; 0: all
  float scale;            // on the scores
  float cap;              // a scaled score s becomes cap * tanh(s / cap); 0: stays
  float* scores;          // scratch [n_queries, scores_stride], scores_stride >= padded(last + n_queries)
  int64_t scores_stride;
  float* out;  // [n_queries, out_stride], each [head_dim]
  int64_t out_stride;
  int32_t head_dim;
};

struct Kernels {
  const char* name;

  // y[r] = row r . x for n_rows rows of cols weights; x is padded.
  void (*matvec[CQIL_DTYPE_COUNT])(const uint8_t* rows, int64_t row_bytes, int64_t n_rows, int64_t cols, const float* x,
                                   float* y);
  // The panel of n_rows rows as float32, each padded with zeros to padded(cols) columns; of one row, that row.
  void (*unpack[CQIL_DTYPE_COUNT])(const uint8_t* rows, int64_t row_bytes, int64_t n_rows, int64_t cols, float* panel);
  // y: the product of each row of the panel with each token's x[n], n a multiple of 16.
  void (*matmul)(const float* panel, int64_t n_rows, const TokenVectors<float>& x, int64_t n, const Products& y);

  // out = x * weight / sqrt(mean(x^2) + eps), NaN throughout where the mean is not finite; out's padding is left alone.
  // out may be x.
  void (*rms_norm)(const float* x, const float* weight, int64_t n, float eps, float* out);
  // y += x
  void (*add)(float* y, const float* x, int64_t n);
  // By cqil_activation: gate = act(gate) * up.
  void (*activate_mul[CQIL_ACTIVATION_COUNT])(float* gate, const float* up, int64_t n);
  // x = cap * tanh(x / cap); NaN where x is not finite, as an infinite x would hide behind the cap.
  void (*cap)(float* x, int64_t n, float cap);
  // By the format of the KV cache; null for what is none. row = x[stride], a multiple of 16 and of the format's block,
  // rounded to the format. A value that is not finite, or not in the format, is kept as NaN, or its block is: an
  // infinite key could hide, as softmax gives a score of minus infinity no weight.
  void (*store_kv[CQIL_DTYPE_COUNT])(const float* x, int64_t stride, uint8_t* row);
  // out = softmax(scale * query . keys) values; NaN where a key or value that is attended to has one, or a score is NaN
  // or infinite.
  void (*attend[CQIL_DTYPE_COUNT])(const AttendArgs& args);
  // log(sum(exp(x))); NaN when one is NaN or infinite.
  double (*log_sum_exp)(const float* x, int64_t n);
};

// One table per instruction set; which of them are in this build, dispatch.cc knows.
extern const Kernels kernels_plain, kernels_avx2, kernels_avx512, kernels_neon;

struct RoundedKernels;  // rounded_kernels.h

// The instruction sets of this build, best last; supported says whether this machine runs them. Some differ in products
// with rounded activations alone.
struct Isa {
  const char* name;
  const Kernels* kernels;
  const RoundedKernels *bf16, *int8;
  bool supported;
};
struct IsaList {
  const Isa* items;
  int count;
};
IsaList isa_list();

// The best supported one, unless the environment variable CQIL_ISA names another supported one.
const Isa& best_isa();
// Whether the processor multiplies bf16, so that activations rounded to it are faster than floats.
bool multiplies_bf16(const Isa& isa);
inline const Kernels& best_kernels() { return *best_isa().kernels; }

}  // namespace cqil
