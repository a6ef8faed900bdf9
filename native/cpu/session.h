// What one session holds on the CPU: KV cache, activations, and scratch for each thread.
#pragma once
#include <atomic>
#include <cstdlib>
#include <memory>
#include <vector>

#include "../backend/backend.h"
#include "kernels/int8_kernels.h"
#include "kernels/kernels.h"
#include "team.h"

namespace cqil {

// Zeroed storage on cache-line boundaries that the system commits only as it is touched. Throws std::bad_alloc.
class Zeroed {
 public:
  Zeroed() = default;
  Zeroed(size_t count, size_t element_bytes);
  void* get() const { return aligned_; }

 private:
  struct Free {
    void operator()(void* p) const { std::free(p); }
  };
  std::unique_ptr<void, Free> block_;
  void* aligned_ = nullptr;
};

template <class T>
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(size_t count) : storage_(count, sizeof(T)) {}
  T* get() const { return static_cast<T*>(storage_.get()); }

 private:
  Zeroed storage_;
};
using Floats = Buffer<float>;
using Bytes = Buffer<uint8_t>;

struct CpuModel {
  CpuModel(const cqil_weights& weights, const cqil_model_options& options, const Isa& isa)
      : weights(weights), kernels(*isa.kernels), int8_kernels(*isa.int8), own_team(options.base ? nullptr : new Team(options.threads)),
        team(options.base ? reinterpret_cast<CpuModel*>(options.base)->team : *own_team) {}
  const cqil_weights& weights;
  const Kernels& kernels;
  const Int8Kernels& int8_kernels;
  const std::unique_ptr<Team> own_team;
  Team& team;  // the base's, or its own
};

// Positions whose logits are held at a time when scoring.
constexpr int64_t kScoreRows = 8;

// How many units have been taken of one thread's share of a phase; on a cache line of its own.
struct alignas(64) Claim {
  std::atomic<int> taken{0};
};

// One thread's own.
struct Scratch {
  Floats panel;   // [kPanelRows, widest padded row] unpacked weights
  Floats tile;    // [batch, max(head_dim, kPanelRows)] products on their way to where they belong
  Floats norm;    // [padded(dim)] the normalised input, when there is one token
  Floats scores;  // [kAttendQueries, scores_stride] of one head
  Floats head;    // [head_stride] a key or value on its way to the cache
  Bytes int8;     // [lanes, int8_stride] inputs of products rounded to int8, when there is one token
};

struct CpuSession {
  CpuSession(CpuModel& model, const cqil_program& program, const cqil_session_options& options);

  CpuModel& model;
  std::vector<cqil_phase> phases;
  cqil_program program;  // its phases are the vector above
  const int64_t context;
  const cqil_dtype kv_dtype;
  const bool int8;      // activations are rounded where there are products for that
  const int64_t batch;  // most tokens at once

  // Row strides, in floats.
  const int64_t dim_stride, head_stride, query_stride, attention_stride, hidden_stride, scores_stride;
  const int64_t kv_stride;    // of the cache, in bytes: head_stride values
  const int64_t int8_stride;  // of rounded rows, in bytes; 0 without them

  Bytes keys, values;       // [n_layers, n_kv_heads, context, kv_stride]
  Floats x;                 // [batch, dim_stride] the residual stream
  Floats norm;              // [lanes, batch, dim_stride] normalised inputs, when there are several tokens
  Floats query;             // [lanes, batch, query_stride], heads head_stride apart
  Floats attention;         // [lanes, batch, attention_stride], heads head_dim apart
  Floats attention_out;     // [lanes, batch, dim_stride] a_j
  Floats gate_up;           // [lanes, batch, hidden_stride]
  Floats mlp_out;           // [lanes, batch, dim_stride] m_j, where lanes run apart
  Bytes int8_rows;          // [lanes, batch, int8_stride] inputs of products rounded to int8, when there are several tokens
  Floats logits;            // [kScoreRows, vocab]
  Floats rope_cos, rope_sin;  // [context, head_dim / 2]
  int64_t rope_filled = 0;    // positions computed

  std::vector<Scratch> scratch;                 // [threads]
  std::unique_ptr<Claim[]> claimed;  // [n_phases, lanes, threads]
  Barrier all;                                  // the whole team
  // crews[n - 2][c]: the members of crew c when the team is split in n.
  std::vector<std::vector<std::unique_ptr<Barrier>>> crews;
  std::atomic<bool> cancelled{false};
};

}  // namespace cqil
