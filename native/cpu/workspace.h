// What forwards need on the CPU besides weights: a cache for each text, and one workspace for each program, with
// activations, and scratch for each thread.
#pragma once
#include <atomic>
#include <memory>
#include <numeric>
#include <optional>
#include <vector>

#include "../backend/backend.h"
#include "buffer.h"
#include "interleaved.h"
#include "kernels/kernels.h"
#include "kernels/rounded_kernels.h"
#include "reduction.h"
#include "team.h"

namespace cqil {

struct CpuModel {
  CpuModel(const cqil_weights& given, const cqil_model_options& options, const Isa& isa)
      : CpuModel(given, options, isa, reinterpret_cast<CpuModel*>(options.base)) {}
  const RoundedKernels* const rounded;  // products with rounded activations, where there are such; null: float32
  InterleavedWeights interleaved;
  const cqil_weights& weights;  // as products read them
  const cqil_ranks* const ranks;
  const Kernels& kernels;
  const std::unique_ptr<Team> own_team;
  Team& team;  // the base's, or its own

 private:
  CpuModel(const cqil_weights& given, const cqil_model_options& options, const Isa& isa, CpuModel* base)
      : rounded(options.activations == CQIL_ACTIVATIONS_INT8   ? isa.int8
                : options.activations == CQIL_ACTIVATIONS_BF16 ? isa.bf16
                                                               : nullptr),
        interleaved(given, rounded, base ? &base->interleaved : nullptr),
        weights(interleaved.view()),
        ranks(options.ranks),
        kernels(*isa.kernels),
        own_team(base ? nullptr : new Team(options.threads)),
        team(base ? base->team : *own_team) {}
};

// The fewest heads whose rows of a query, key or value projection can be multiplied by themselves.
inline int64_t heads_per_unit(const CpuModel& model) {
  const int64_t multiple = model.rounded ? model.rounded->row_multiple : 1;
  return multiple / std::gcd<int64_t>(multiple, model.weights.shape.head_dim);
}

// Tokens whose logits are computed together.
constexpr int64_t kHeadRows = 8;

// Tokens of one row and head in a unit of attention.
constexpr int64_t kTokensPerUnit = 16;

// How many units have been taken of one thread's share of a phase; on a cache line of its own.
struct alignas(64) Claim {
  std::atomic<int> taken{0};
};

// One thread's own.
struct Scratch {
  Floats panel;   // [kPanelRows, widest row padded to 32] unpacked weights
  Floats tile;    // [batch, max(head_dim, kMostPanelRows)] products on their way to where they belong
  Floats norm;    // [padded(dim)] the normalised input, when there is one token
  Floats scores;  // [kAttendQueries, the workspace's scores_stride] of one head
  Floats head;    // [head_stride] a key or value on its way to the cache
  Bytes rounded;  // [lanes, rounded_stride] inputs of products, rounded, when there is one token
};

// One text's keys and values.
struct CpuCache {
  CpuCache(const CpuModel& model, const cqil_cache_options& options);
  uint8_t* key(int64_t layer, int64_t head, int64_t position) const { return row(keys, layer, head, position); }
  uint8_t* value(int64_t layer, int64_t head, int64_t position) const { return row(values, layer, head, position); }

  const int64_t context;
  const cqil_dtype kv_dtype;
  const int64_t n_kv_heads;
  const int64_t head_stride;  // floats of a head, in whole vectors and whole blocks of the format
  const int64_t kv_stride;    // the same in the format, in bytes
  const Bytes keys, values;   // [n_layers, n_kv_heads, context, kv_stride]

 private:
  uint8_t* row(const Bytes& of, int64_t layer, int64_t head, int64_t position) const {
    return of.get() + ((layer * n_kv_heads + head) * context + position) * kv_stride;
  }
};

// A token of a forward.
struct TokenPlace {
  const CpuCache* cache;
  int32_t position;
  int32_t id;
};

// A row of a forward, and what attends to its cache: units of work, see Pass::attention.
struct RowPlace {
  const cqil_row* row;
  const CpuCache* cache;
  int64_t first_token;
  int64_t first_unit, parts;  // units of a key/value head: (heads that share it, or 1 for all) times parts
};

// A token whose logits are wanted.
struct HeadPlace {
  int64_t token;
  float* logits;              // where they go; null: nowhere
  float* score;               // where the log-probability of target goes, or null
  cqil_shortlist* shortlist;  // or null
  int32_t target;
};

struct CpuWorkspace {
  static constexpr int32_t kNever = INT32_MAX;

  CpuWorkspace(CpuModel& model, const cqil_program& program);
  // Lists the tokens of a forward, and what is wanted of them.
  void take(const cqil_forward& request);
  // Makes room for positions 0 … end - 1 of a text. Throws std::bad_alloc.
  void reach(int64_t end);
  // Prepares the next forward for this number of members: their barriers, and their claims on work, which begin anew.
  void share_among(int members);

  CpuModel& model;
  cqil_program program;  // without its phases: steps of a schedule name them by number
  static constexpr int64_t batch = CQIL_MAX_BATCH;

  // Row strides, in floats.
  const int64_t dim_stride, head_stride, query_stride, attention_stride, hidden_stride;
  const int64_t rounded_stride;  // of rounded rows, in bytes; 0 without them

  Floats x;              // [batch, dim_stride] the residual stream
  Floats norm;           // [lanes, batch, dim_stride] normalised inputs, when there are several tokens
  Floats query;          // [lanes, batch, query_stride], heads head_stride apart
  Floats attention;      // [lanes, batch, attention_stride], heads head_dim apart
  Floats attention_out;  // [lanes, batch, dim_stride] a_j
  Floats gate_up;        // [lanes, batch, hidden_stride]
  Floats mlp_out;        // [lanes, batch, dim_stride] m_j, where lanes run apart
  Bytes rounded;         // [lanes, batch, rounded_stride] inputs of products, rounded, when there are several tokens
  Floats logits;         // [kHeadRows, vocab]
  int64_t reached = 0;   // positions that there is room for
  int64_t scores_stride = 0;
  Floats rope_cos, rope_sin;  // [reached, n_ropes, rope_dim / 2]
  int64_t rope_filled = 0;    // positions computed

  // Of the present forward.
  std::vector<TokenPlace> tokens;
  std::vector<RowPlace> rows;
  std::vector<HeadPlace> heads;
  int64_t attention_units = 0;  // of a key/value head of a lane

  std::optional<Reduction> reduction;       // where there are ranks
  std::vector<Reduction::Piece> exchanged;  // what the present step exchanges

  std::vector<Scratch> scratch;      // [threads]
  std::unique_ptr<Claim[]> claimed;  // [n_phases, lanes, threads]
  Barrier all;                       // all members of a forward
  // crews[n - 2][c]: the members of crew c when they are split in n.
  std::vector<std::vector<std::unique_ptr<Barrier>>> crews;
  // Steps of the schedule, or kNever; see runner.cc.
  std::atomic<int32_t> stop_at{kNever};     // before this the request was found to be cancelled
  std::atomic<int32_t> alone_from{kNever};  // from here on member 0 computes alone, because the others keep it waiting
};

}  // namespace cqil
