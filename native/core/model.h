// A loaded model: weights, and the backend's own side of them. Sessions share it and keep it alive.
#pragma once
#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "../backend/backend.h"
#include "adapter.h"
#include "ahead.h"
#include "execution_tuner.h"
#include "exchange.h"
#include "program.h"
#include "ranks.h"
#include "weights.h"

namespace cqil {

class Workspace;

// How the rank that has a model reaches the others.
struct Joined {
  std::shared_ptr<Exchange> exchange;
  std::chrono::nanoseconds patience{0};  // how long others are waited for; 0: for ever
};

class Model {
 public:
  // joined is given where the spec has a rank. Throws what Weights and the backend throw.
  Model(WeightsSpec spec, const cqil_backend& backend, const cqil_model_options& options, Joined joined = {});
  // The base with an adapter merged in, computing on the base's threads or device. Throws what MergedWeights and the
  // backend throw.
  Model(std::shared_ptr<Model> base, const AdapterSpec& adapter);
  ~Model();
  Model(const Model&) = delete;

  const cqil_shape& shape() const { return weights().view().shape; }
  // As they are in the files.
  const Weights& weights() const { return base_ ? base_->weights() : *weights_; }
  Weights& weights() { return base_ ? base_->weights() : *weights_; }
  // Brings the weights to where products read them, in pieces of about piece_bytes, by a few threads: some wait for the
  // disk while others prepare what they have read. Any of them says how many bytes there are more. Once, and without an
  // adapter; what is not read so costs the first session time. Throws ABORTED after stop_reading(), FILE_NOT_FOUND,
  // FILE_CHANGED, and what the backend throws.
  void read(const std::function<void(uint64_t)>& progressed, uint64_t piece_bytes = 32 << 20);
  // What sessions need to have been read.
  void bring_in_rest() { weights().bring_in_rest(); }
  // From any thread.
  void stop_reading() { stop_reading_ = true; }
  // Bytes of matrices with an adapter merged in.
  uint64_t merged_bytes() const { return merged_ ? merged_->bytes() : 0; }
  const cqil_backend& backend() const { return backend_; }
  cqil_backend_model* backend_model() const { return backend_model_; }
  // As the backend has them, adapters merged in.
  const cqil_weights& view() const { return merged_ ? merged_->view() : weights_->view(); }
  const cqil_model_options& options() const { return options_; }
  // Null where one process computes the model.
  const cqil_ranks* ranks() const { return options_.ranks; }
  // Null on followers, and where there are no ranks.
  Leader* leader() const { return leader_.get(); }
  // On a follower: does what the leader tells it, until the leader lets it go. Throws what cqil::follow throws.
  void follow();
  // Threads that compute a forward; 0 where a device does.
  int32_t team_size() const { return backend_.threads(backend_model_); }
  // Asked for; the backend may have fewer.
  int32_t threads() const { return options_.threads; }
  // Held during a forward: the sessions of a model, with an adapter or without, share its threads or device.
  std::mutex& forward_mutex() { return base_ ? base_->forward_mutex() : forward_mutex_; }
  // Forwards of its sessions that are under way before they are asked for.
  Ahead& ahead() { return base_ ? base_->ahead() : ahead_; }
  // The one that sessions of this program share; it is there as long as one of them is. Throws what Workspace throws.
  std::shared_ptr<Workspace> workspace(Program program);

 private:
  // The ways in which a program may run whose largest group has max_lanes layers. The one that is most likely the
  // fastest comes first.
  std::vector<Way> ways(int32_t max_lanes) const;
  void read_piece(const std::vector<Weights::Rows>& piece);
  bool prepare(const void* data, int64_t first_row, int64_t n_rows);

  const std::shared_ptr<Model> base_;       // with an adapter
  const std::unique_ptr<Weights> weights_;  // without
  const std::unique_ptr<MergedWeights> merged_;
  const cqil_backend& backend_;
  cqil_backend_model* backend_model_ = nullptr;
  const Joined joined_;
  const cqil_ranks ranks_ = {};
  const cqil_model_options options_;
  const std::unique_ptr<Leader> leader_;
  std::atomic<bool> stop_reading_{false};
  std::mutex forward_mutex_;
  Ahead ahead_;
  // Of both maps. Not forward_mutex_: sessions are made on the JavaScript thread, which waits for nothing long.
  std::mutex programs_mutex_;
  // What sessions of a program have learnt about its executions, by the first layer of every stage.
  std::map<std::vector<int32_t>, ExecutionTuner> tuners_;
  std::map<std::vector<int32_t>, std::weak_ptr<Workspace>> workspaces_;  // by the first layers and the bypass
};

// Throws the error of a backend call that did not return CQIL_OK.
void check_status(cqil_status status, const cqil_error& error);

}  // namespace cqil
