#include "model.h"

#include <algorithm>
#include <exception>
#include <limits>

#include "error.h"
#include "in_parts.h"
#include "workspace.h"

namespace cqil {

void check_status(cqil_status status, const cqil_error& error) {
  const char* code = nullptr;
  switch (status) {
    case CQIL_OK: return;
    case CQIL_INVALID_ARGUMENT: code = "INVALID_ARGUMENT"; break;
    case CQIL_UNSUPPORTED_MODEL: code = "UNSUPPORTED_MODEL"; break;
    case CQIL_BACKEND_UNAVAILABLE: code = "BACKEND_UNAVAILABLE"; break;
    case CQIL_OUT_OF_MEMORY: code = "OUT_OF_MEMORY"; break;
    case CQIL_ABORTED: throw Error("ABORTED", "The call was aborted.");
    case CQIL_RANK_LOST: code = "RANK_LOST"; break;
    case CQIL_INTERNAL: code = "INTERNAL"; break;
  }
  throw Error(code ? code : "INTERNAL", error.text);
}

namespace {

cqil_ranks joined_ranks(const Weights& weights, const Joined& joined) {
  if (!joined.exchange) return {};
  cqil_ranks ranks = weights.shares()->view(joined.exchange->state().rank);
  ranks.exchange = &joined.exchange->table();
  ranks.end = joined.exchange->end();
  ranks.patience_ns = joined.patience.count();
  return ranks;
}

cqil_model_options with_ranks(cqil_model_options options, const cqil_ranks& ranks) {
  options.ranks = ranks.n_ranks > 0 ? &ranks : nullptr;
  return options;
}

}  // namespace

Model::Model(WeightsSpec spec, const cqil_backend& backend, const cqil_model_options& options, Joined joined)
    : weights_(std::make_unique<Weights>(std::move(spec))),
      backend_(backend),
      joined_(std::move(joined)),
      ranks_(joined_ranks(*weights_, joined_)),
      options_(with_ranks(options, ranks_)),
      leader_(ranks_.n_ranks > 0 && ranks_.rank == 0 ? new Leader(*joined_.exchange, joined_.patience) : nullptr) {
  if (!backend_.prepare) weights_->bring_in_rest();
  cqil_error error = {};
  check_status(backend_.model_create(&weights_->view(), &options_, &backend_model_, &error), error);
  if (backend_.prepare) return;
  try {
    weights_->expect_as_read();
  } catch (...) {
    backend_.model_destroy(backend_model_);
    throw;
  }
}

static cqil_model_options variant_options(cqil_model_options options, cqil_backend_model* base) {
  options.base = base;
  return options;
}

static std::shared_ptr<Model> expect_whole(std::shared_ptr<Model> base) {
  if (base->ranks())
    throw Error("UNSUPPORTED_MODEL", "An adapter cannot be merged into a model on ranks; expected one rank.");
  return base;
}

Model::Model(std::shared_ptr<Model> base, const AdapterSpec& adapter)
    : base_(expect_whole(std::move(base))),
      merged_(std::make_unique<MergedWeights>(base_->weights(), adapter, base_->threads())),
      backend_(base_->backend_),
      options_(variant_options(base_->options_, base_->backend_model_)) {
  std::lock_guard<std::mutex> lock(forward_mutex());
  cqil_error error = {};
  check_status(backend_.model_create(&merged_->view(), &options_, &backend_model_, &error), error);
  try {
    for (const void* data : merged_->matrices())
      if (prepare(data, 0, std::numeric_limits<int64_t>::max())) merged_->release(data);
  } catch (...) {
    backend_.model_destroy(backend_model_);
    throw;
  }
}

// Whether the rows are not read again.
bool Model::prepare(const void* data, int64_t first_row, int64_t n_rows) {
  if (!backend_.prepare) return false;
  cqil_error error = {};
  int32_t moved = 0;
  check_status(backend_.prepare(backend_model_, data, first_row, n_rows, &moved, &error), error);
  return moved != 0;
}

void Model::read_piece(const std::vector<Weights::Rows>& piece) {
  for (const Weights::Rows& rows : piece) weights_->bring_in(rows);
  std::vector<Weights::Rows> released;
  bool moved = false;
  for (const Weights::Rows& rows : piece) {
    const bool vector = rows.first == 0 && rows.count == 1;  // between matrices, and copied
    if (!vector && !prepare(rows.tensor, rows.first, rows.count)) {
      weights_->touch(rows);
      continue;
    }
    released.push_back(rows);
    moved |= !vector;
  }
  if (moved) weights_->release(released);
}

void Model::read(const std::function<void(uint64_t)>& progressed, uint64_t piece_bytes) {
  if (base_) return;
  constexpr size_t kReaders = 3;
  const std::vector<std::vector<Weights::Rows>> pieces = weights_->pieces(piece_bytes);
  const int readers = static_cast<int>(std::clamp<size_t>(pieces.size(), 1, kReaders));  // a small model needs no
                                                                                         // thread but this one
  std::atomic<size_t> next{0};
  std::mutex failing;
  std::exception_ptr failure;
  in_parts(readers, readers, [&](int, int64_t, int64_t) {
    try {
      for (size_t piece; !stop_reading_ && (piece = next++) < pieces.size();) {
        read_piece(pieces[piece]);
        uint64_t bytes = 0;
        for (const Weights::Rows& rows : pieces[piece]) bytes += rows.bytes();
        progressed(bytes);
      }
    } catch (...) {
      std::lock_guard<std::mutex> lock(failing);
      failure = std::current_exception();
      next = pieces.size();
    }
  });
  if (failure) std::rethrow_exception(failure);
  if (stop_reading_) throw Error("ABORTED", "Reading the weights was stopped.");
  weights_->expect_as_read();
}

void Model::follow() { cqil::follow(*this, *joined_.exchange, joined_.patience); }

Model::~Model() { backend_.model_destroy(backend_model_); }

std::shared_ptr<Workspace> Model::workspace(Program program) {
  std::vector<int32_t> stages = program.first_layers(), key = stages;
  key.push_back(program.bypass);
  key.push_back(program.bypass_residual);
  std::lock_guard<std::mutex> lock(programs_mutex_);
  for (auto it = workspaces_.begin(); it != workspaces_.end();)
    it = it->second.expired() ? workspaces_.erase(it) : std::next(it);
  const auto found = workspaces_.find(key);
  if (found != workspaces_.end())
    if (auto workspace = found->second.lock()) return workspace;
  auto tuner = tuners_.find(stages);
  if (tuner == tuners_.end()) tuner = tuners_.try_emplace(std::move(stages), ways(program.max_lanes)).first;
  auto workspace = std::make_shared<Workspace>(*this, std::move(program), tuner->second);
  workspaces_[std::move(key)] = workspace;
  return workspace;
}

std::vector<Way> Model::ways(int32_t max_lanes) const {
  const int32_t all = team_size();
  // One thread fewer leaves a core to another process. Half of them may be enough where memory is the limit.
  std::vector<int32_t> teams = {all};
  if (all > 2) teams.push_back(all - 1);
  for (int32_t fewer = all / 2; fewer > 0; fewer /= 2)
    if (fewer < teams.back()) teams.push_back(fewer);
  const uint32_t executions = backend_.executions(backend_model_);
  std::vector<Way> ways;
  for (int32_t threads : teams)
    for (cqil_execution execution : {CQIL_WIDE, CQIL_LANES, CQIL_PERSISTENT}) {
      // One thread takes the layers of a group one after another. Where it goes through all of them phase by phase, a
      // token takes up to 2 % longer than in the sequential plan.
      const bool together = execution == CQIL_WIDE && threads == 1 && max_lanes > 1 && executions & 1u << CQIL_LANES;
      const bool differs = execution != CQIL_LANES || max_lanes > 1;
      if (executions & 1u << execution && differs && !together) ways.push_back({execution, threads});
    }
  return ways;
}

}  // namespace cqil
