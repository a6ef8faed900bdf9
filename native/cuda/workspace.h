// What forwards of one program need on the device besides weights and caches: activations and scratch, the streams that
// lanes run on, and the graphs that replay a token. All texts share it.
#pragma once
#include <optional>
#include <vector>

#include "batch.h"
#include "products.h"

namespace cqil::cuda {

// One token in one execution: launched piece by piece the first time, which loads the kernels' code; captured the
// second; replayed from then on.
struct TokenGraph {
  bool warm = false;
  GraphExec exec;
};

// What a token's graph leaves on the host.
enum TokenOutput { kNothing, kLogits, kShortlist, kTokenOutputs };

class Workspace {
 public:
  // Throws INVALID_ARGUMENT, OUT_OF_MEMORY before anything is allocated, INTERNAL.
  Workspace(Model& model, const cqil_program& program);
  ~Workspace();
  Workspace(const Workspace&) = delete;

  // A forward's view of this workspace; launches of one token may overlap, where the caller lets them.
  Step step(const Batch& batch) const;
  // The graph of a token whose cache has this format. Each format has kernels of its own.
  TokenGraph& graph(cqil_execution execution, TokenOutput output, cqil_dtype kv_dtype) {
    return graphs_[execution][output][kv_dtype];
  }
  // Waits for all that is in flight, whatever came of it.
  void drain() const;
  // Computes the angles of positions 0 … end - 1 that are not there yet, with room for `context` positions.
  void fill_rope(int32_t context, int32_t end);

  Model& model;
  const SharedPlan shared;
  DeviceWorkspace device = {};
  DeviceArray<cqil_phase> phases;  // [n_phases] of the program
  const int32_t n_phases;
  std::optional<Products> products;

  Stream stream;                     // of lane 0 and of everything that is not a lane's
  std::vector<Stream> lane_streams;  // [max_lanes - 1] of lanes 1 …
  Event forked;
  std::vector<Event> attended, done;  // [max_lanes] a_j is there; the lane is through

  PinnedArray<DeviceInputs> inputs;
  PinnedArray<float> logits;               // [vocab_size] of one token
  PinnedArray<float> scores;               // [CQIL_MAX_BATCH]
  PinnedArray<cqil_shortlist> shortlists;  // [CQIL_MAX_BATCH]

 private:
  void make_rope_room(int32_t positions);

  DeviceArray<uint8_t> arena_;
  TokenGraph graphs_[CQIL_EXECUTION_COUNT][kTokenOutputs][CQIL_DTYPE_COUNT];
  DeviceArray<float> rope_;     // [2, rope_room, head_dim / 2]
  std::vector<float> staging_;  // angles on their way to the device
  int32_t rope_room_ = 0;       // positions
  int32_t rope_filled_ = 0;
};

}  // namespace cqil::cuda
