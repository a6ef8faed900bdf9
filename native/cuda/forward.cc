#include "forward.h"

#include <algorithm>
#include <cstring>

#include "graph.h"
#include "runner.h"

namespace cqil::cuda {
namespace {

constexpr const char* kSending = "tokens were copied to it";
constexpr const char* kComputing = "it computed";
constexpr const char* kReceiving = "results were copied from it";

void send(const Workspace& workspace, size_t bytes) {
  check(cudaMemcpyAsync(workspace.device.inputs, workspace.inputs.get(), bytes, cudaMemcpyHostToDevice,
                        workspace.stream.get()),
        kSending);
}

template <class T>
void receive(const Workspace& workspace, T* to, const T* from, int64_t count) {
  const auto bytes = static_cast<size_t>(count) * sizeof(T);
  check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, workspace.stream.get()), kReceiving);
}

// Sends a token, computes it, and brings its logits to workspace.logits or the highest of them to workspace.shortlist:
// what a graph of one token holds. Not to be stopped: the graph is captured whole, and a replay is short.
void token(const Workspace& workspace, const cqil_forward& request, TokenOutput output, cqil_dtype kv_dtype) {
  Step step = workspace.step(1, kv_dtype);
  step.overlaps = workspace.model.device.overlaps;
  cudaStream_t const stream = workspace.stream.get();
  send(workspace, sizeof(DeviceToken));
  if (request.execution == CQIL_PERSISTENT) {
    const TokenRun run = {workspace.phases.get(), workspace.n_phases, output != kNothing, output == kShortlist};
    check(launch_token(step, run, stream), kComputing);
  } else {
    run(workspace, step, request, false, [&] {
      if (output != kNothing) check(launch_head(step, 0, 1, stream), kComputing);
    });
    if (output == kShortlist) check(launch_select(step, 0, stream), kComputing);
  }
  if (output == kLogits)
    receive(workspace, workspace.logits.get(), workspace.device.logits, workspace.model.shape.vocab_size);
  if (output == kShortlist) receive(workspace, workspace.shortlist.get(), workspace.device.shortlist, 1);
}

void run_token(Workspace& workspace, const cqil_forward& request, cqil_dtype kv_dtype) {
  const cqil_row& row = *request.rows;
  const TokenOutput output = row.output == CQIL_OUTPUT_LOGITS      ? kLogits
                             : row.output == CQIL_OUTPUT_SHORTLIST ? kShortlist
                                                                   : kNothing;
  TokenGraph& graph = workspace.graph(request.execution, output, kv_dtype);
  if (graph.warm) {
    if (!graph.exec) graph.exec = capture(workspace.stream.get(), [&] { token(workspace, request, output, kv_dtype); });
    check(cudaGraphLaunch(graph.exec.get(), workspace.stream.get()), kComputing);
  } else {
    token(workspace, request, output, kv_dtype);
    graph.warm = true;
  }
  check(cudaStreamSynchronize(workspace.stream.get()), kComputing);
  if (output == kLogits)
    std::memcpy(row.result, workspace.logits.get(),
                static_cast<size_t>(workspace.model.shape.vocab_size) * sizeof(float));
  if (output == kShortlist) *row.shortlists = *workspace.shortlist.get();
}

// What follows the last stage, in as many rows of logits at a time as a workspace holds.
void head(const Workspace& workspace, const Step& step, const cqil_row& row) {
  cudaStream_t const stream = workspace.stream.get();
  const int64_t vocab = step.model.vocab_size;
  const int32_t rows = std::min(workspace.device.size.batch, CQIL_MAX_LOGIT_ROWS);
  switch (row.output) {
    case CQIL_OUTPUT_NONE:
    case CQIL_OUTPUT_TRACE: return;
    case CQIL_OUTPUT_LOGITS:
      check(launch_head(step, row.n_ids - 1, 1, stream), kComputing);
      return receive(workspace, row.result, step.workspace.logits, vocab);
    case CQIL_OUTPUT_SHORTLIST:
      for (int32_t i = 0; i < row.n_listed; i++) {
        check(launch_head(step, row.n_ids - row.n_listed + i, 1, stream), kComputing);
        check(launch_select(step, row.n_ids - row.n_listed + i, stream), kComputing);
        receive(workspace, row.shortlists + i, step.workspace.shortlist, 1);
      }
      return;
    case CQIL_OUTPUT_ALL_LOGITS:
      for (int32_t first = 0; first < row.n_ids; first += rows) {
        const int32_t n = std::min(rows, row.n_ids - first);
        check(launch_head(step, first, n, stream), kComputing);
        receive(workspace, row.result + first * vocab, step.workspace.logits, n * vocab);
      }
      return;
    case CQIL_OUTPUT_SCORES:
      for (int32_t first = 0; first < row.n_scores; first += rows) {
        const int32_t n = std::min(rows, row.n_scores - first);
        check(launch_head(step, first, n, stream), kComputing);
        check(launch_scores(step, first, n, stream), kComputing);
      }
      return receive(workspace, row.result, step.workspace.scores, row.n_scores);
  }
}

// The tokens of a row, to be sent.
void take(DeviceToken* to, const cqil_row& row, const DeviceCache& cache) {
  const int32_t first_listed = row.n_ids - row.n_listed;
  for (int32_t i = 0; i < row.n_ids; i++) {
    to[i] = {cache, row.position + i, row.ids[i], 0, 0};
    if (row.output == CQIL_OUTPUT_SCORES && i < row.n_scores) to[i].target = row.targets[i];
    if (row.output == CQIL_OUTPUT_SHORTLIST && i >= first_listed) to[i].listed = row.shortlists[i - first_listed].count;
  }
}

cqil_status compute(Workspace& workspace, const cqil_forward& request) {
  const cqil_row& row = *request.rows;
  const DeviceCache& cache = reinterpret_cast<const Cache*>(row.cache)->device;
  const auto kv_dtype = static_cast<cqil_dtype>(cache.kv_dtype);
  workspace.fill_rope(cache.context, row.position + row.n_ids);
  take(workspace.inputs->tokens, row, cache);

  const bool plain =
      row.output == CQIL_OUTPUT_NONE || row.output == CQIL_OUTPUT_LOGITS || row.output == CQIL_OUTPUT_SHORTLIST;
  if (row.n_ids == 1 && plain) {
    run_token(workspace, request, kv_dtype);
    return CQIL_OK;
  }
  // Several tokens are worth launching one by one: their kernels run longer than a launch takes.
  const Step step = workspace.step(row.n_ids, kv_dtype);
  send(workspace, static_cast<size_t>(row.n_ids) * sizeof(DeviceToken));
  run(workspace, step, request, true, [&] { head(workspace, step, row); });
  const bool cancelled = cqil_cancelled(&request);
  check(cudaStreamSynchronize(workspace.stream.get()), kComputing);
  return cancelled ? CQIL_ABORTED : CQIL_OK;
}

}  // namespace

cqil_status forward(Workspace& workspace, const cqil_forward& request) {
  if (cqil_cancelled(&request)) return CQIL_ABORTED;
  try {
    return compute(workspace, request);
  } catch (...) {
    // What was enqueued before the failure still writes to the caller's memory.
    workspace.drain();
    throw;
  }
}

}  // namespace cqil::cuda
