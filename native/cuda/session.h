// What one session holds on the device: KV cache, activations, the streams its lanes run on, and the graphs that replay
// a token.
#pragma once
#include <optional>
#include <vector>

#include "model.h"
#include "products.h"

namespace cqil::cuda {

// What the host sends before a forward, in the order of DeviceSession's position, ids and targets, so that one copy
// does.
struct Inputs {
  int32_t position;
  int32_t ids[CQIL_MAX_BATCH];
  int32_t targets[CQIL_MAX_BATCH];
};

// One token in one execution: launched piece by piece the first time, which loads the kernels' code; captured the
// second; replayed from then on.
struct TokenGraph {
  bool warm = false;
  int32_t listed = 0;  // entries of the shortlist, where it gives one
  GraphExec exec;
};

// What a token's graph leaves on the host.
enum TokenOutput { kNothing, kLogits, kShortlist, kTokenOutputs };

class Session {
 public:
  // Throws INVALID_ARGUMENT, OUT_OF_MEMORY before anything is allocated, INTERNAL.
  Session(Model& model, const cqil_program& program, const cqil_cache_options& options);
  ~Session();
  Session(const Session&) = delete;

  // A forward's view of this session; launches of one token may overlap, where the caller lets them.
  Step step(int32_t n_tokens) const {
    return {model.weights.device(), device, n_tokens, model.device.multiprocessors, shared.stage_floats,
            shared.ring_bytes,      false};
  }
  // Waits for all that is in flight, whatever came of it.
  void drain() const;
  // Angles of positions 0 … end - 1, computed as a session first gets there.
  void fill_rope(int32_t end);

  Model& model;
  const SharedPlan shared;
  DeviceSession device = {};
  DeviceArray<cqil_phase> phases;  // [n_phases] of the program
  const int32_t n_phases;
  std::optional<Products> products;

  Stream stream;                     // of lane 0 and of everything that is not a lane's
  std::vector<Stream> lane_streams;  // [max_lanes - 1] of lanes 1 …
  Event forked;
  std::vector<Event> attended, done;  // [max_lanes] a_j is there; the lane is through

  PinnedArray<Inputs> inputs;
  PinnedArray<float> logits;              // [vocab_size]
  PinnedArray<cqil_shortlist> shortlist;  // [1]
  TokenGraph graphs[CQIL_EXECUTION_COUNT][kTokenOutputs];

 private:
  DeviceArray<uint8_t> cache_, arena_;
  std::vector<float> rope_;  // staging
  int32_t rope_filled_ = 0;
};

}  // namespace cqil::cuda
