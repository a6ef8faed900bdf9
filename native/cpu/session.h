// What one session holds on the CPU: KV cache, activations, and scratch for each thread.
#pragma once
#include <atomic>
#include <memory>
#include <numeric>
#include <vector>

#include "../backend/backend.h"
#include "buffer.h"
#include "interleaved.h"
#include "kernels/kernels.h"
#include "kernels/rounded_kernels.h"
#include "team.h"

namespace cqil {

struct CpuModel {
  CpuModel(const cqil_weights& given, const cqil_model_options& options, const Isa& isa)
      : CpuModel(given, options, isa, reinterpret_cast<CpuModel*>(options.base)) {}
  const RoundedKernels* const rounded;  // products with rounded activations, where there are such; null: float32
  InterleavedWeights interleaved;
  const cqil_weights& weights;  // as products read them
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
        kernels(*isa.kernels),
        own_team(base ? nullptr : new Team(options.threads)),
        team(base ? base->team : *own_team) {}
};

// The fewest heads whose rows of a query, key or value projection can be multiplied by themselves.
inline int64_t heads_per_unit(const CpuModel& model) {
  const int64_t multiple = model.rounded ? model.rounded->row_multiple : 1;
  return multiple / std::gcd<int64_t>(multiple, model.weights.shape.head_dim);
}

// Positions whose logits are held at a time when scoring.
constexpr int64_t kScoreRows = 8;

// How many units have been taken of one thread's share of a phase; on a cache line of its own.
struct alignas(64) Claim {
  std::atomic<int> taken{0};
};

// One thread's own.
struct Scratch {
  Floats panel;   // [kPanelRows, widest row padded to 32] unpacked weights
  Floats tile;    // [batch, max(head_dim, kMostPanelRows)] products on their way to where they belong
  Floats norm;    // [padded(dim)] the normalised input, when there is one token
  Floats scores;  // [kAttendQueries, scores_stride] of one head
  Floats head;    // [head_stride] a key or value on its way to the cache
  Bytes rounded;  // [lanes, rounded_stride] inputs of products, rounded, when there is one token
};

struct CpuSession {
  static constexpr int32_t kNever = INT32_MAX;

  CpuSession(CpuModel& model, const cqil_program& program, const cqil_session_options& options);
  // Prepares the next forward for this number of members: their barriers, and their claims on work, which begin anew.
  void share_among(int members);

  CpuModel& model;
  std::vector<cqil_phase> phases;
  cqil_program program;  // its phases are the vector above
  const int64_t context;
  const cqil_dtype kv_dtype;
  const int64_t batch;  // most tokens at once

  // Row strides, in floats.
  const int64_t dim_stride, head_stride, query_stride, attention_stride, hidden_stride, scores_stride;
  const int64_t kv_stride;       // of the cache, in bytes: head_stride values
  const int64_t rounded_stride;  // of rounded rows, in bytes; 0 without them

  Bytes keys, values;    // [n_layers, n_kv_heads, context, kv_stride]
  Floats x;              // [batch, dim_stride] the residual stream
  Floats norm;           // [lanes, batch, dim_stride] normalised inputs, when there are several tokens
  Floats query;          // [lanes, batch, query_stride], heads head_stride apart
  Floats attention;      // [lanes, batch, attention_stride], heads head_dim apart
  Floats attention_out;  // [lanes, batch, dim_stride] a_j
  Floats gate_up;        // [lanes, batch, hidden_stride]
  Floats mlp_out;        // [lanes, batch, dim_stride] m_j, where lanes run apart
  Bytes rounded;         // [lanes, batch, rounded_stride] inputs of products, rounded, when there are several tokens
  Floats logits;         // [kScoreRows, vocab]
  Floats rope_cos, rope_sin;  // [context, head_dim / 2]
  int64_t rope_filled = 0;    // positions computed

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
