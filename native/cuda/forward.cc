#include "forward.h"

#include <algorithm>
#include <cstring>

#include "batch.h"
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

// Sends a token, computes it, and brings its logits to workspace.logits or the highest of them to workspace.shortlists:
// what a graph of one token holds. Not to be stopped: the graph is captured whole, and a replay is short.
void token(const Workspace& workspace, const cqil_forward& request, const Batch& batch, TokenOutput output) {
  Step step = workspace.step(batch);
  step.overlaps = workspace.model.device.overlaps;
  cudaStream_t const stream = workspace.stream.get();
  send(workspace, sizeof(DeviceToken));
  if (request.execution == CQIL_PERSISTENT) {
    const TokenRun run = {workspace.phases.get(), workspace.n_phases, output != kNothing, output == kShortlist};
    check(launch_token(step, run, stream), kComputing);
  } else {
    run(workspace, step, request, batch, false, [&] {
      if (output != kNothing) check(launch_head(step, 0, 1, stream), kComputing);
    });
    if (output == kShortlist) check(launch_select(step, 0, 1, stream), kComputing);
  }
  if (output == kLogits)
    receive(workspace, workspace.logits.get(), workspace.device.logits, workspace.model.shape.vocab_size);
  if (output == kShortlist) receive(workspace, workspace.shortlists.get(), workspace.device.shortlists, 1);
}

void run_token(Workspace& workspace, const cqil_forward& request, const Batch& batch) {
  const cqil_row& row = *request.rows;
  const TokenOutput output = row.output == CQIL_OUTPUT_LOGITS      ? kLogits
                             : row.output == CQIL_OUTPUT_SHORTLIST ? kShortlist
                                                                   : kNothing;
  TokenGraph& graph = workspace.graph(request.execution, output, batch.kv_dtype);
  if (graph.warm) {
    if (!graph.exec) graph.exec = capture(workspace.stream.get(), [&] { token(workspace, request, batch, output); });
    check(cudaGraphLaunch(graph.exec.get(), workspace.stream.get()), kComputing);
  } else {
    token(workspace, request, batch, output);
    graph.warm = true;
  }
  check(cudaStreamSynchronize(workspace.stream.get()), kComputing);
  if (output == kLogits)
    std::memcpy(row.result, workspace.logits.get(),
                static_cast<size_t>(workspace.model.shape.vocab_size) * sizeof(float));
  if (output == kShortlist) *row.shortlists = *workspace.shortlists.get();
}

bool wants_logits(const cqil_row& row) {
  return row.output == CQIL_OUTPUT_LOGITS || row.output == CQIL_OUTPUT_ALL_LOGITS;
}

bool any_wants(const Batch& batch, cqil_output output) {
  return std::any_of(batch.rows.begin(), batch.rows.end(),
                     [&](const RowPlace& place) { return place.row->output == output && place.n_heads > 0; });
}

// What follows the last stage. One product computes as many rows of logits as a workspace holds, whichever texts want
// them and whatever for. Logits go to the rows' results, scores and shortlists to the workspace.
void head(const Workspace& workspace, const Step& step, const Batch& batch) {
  cudaStream_t const stream = workspace.stream.get();
  const int64_t vocab = step.model.vocab_size;
  const bool scores = any_wants(batch, CQIL_OUTPUT_SCORES), lists = any_wants(batch, CQIL_OUTPUT_SHORTLIST);
  for (int32_t first = 0; first < batch.n_heads; first += CQIL_MAX_LOGIT_ROWS) {
    const int32_t end = std::min(first + CQIL_MAX_LOGIT_ROWS, batch.n_heads), n = end - first;
    check(launch_head(step, first, n, stream), kComputing);
    if (scores) check(launch_scores(step, first, n, stream), kComputing);
    if (lists) check(launch_select(step, first, n, stream), kComputing);
    for (const RowPlace& place : batch.rows) {
      const int32_t from = std::max(first, place.first_head), to = std::min(end, place.first_head + place.n_heads);
      if (wants_logits(*place.row) && from < to)
        receive(workspace, place.row->result + (from - place.first_head) * vocab,
                step.workspace.logits + (from - first) * vocab, (to - from) * vocab);
    }
  }
  if (scores) receive(workspace, workspace.scores.get(), step.workspace.scores, batch.n_heads);
  if (lists) receive(workspace, workspace.shortlists.get(), step.workspace.shortlists, batch.n_heads);
}

// Scores and shortlists from the workspace to the rows.
void give(const Workspace& workspace, const Batch& batch) {
  for (const RowPlace& place : batch.rows) {
    if (place.row->output == CQIL_OUTPUT_SCORES)
      std::copy_n(workspace.scores.get() + place.first_head, place.n_heads, place.row->result);
    if (place.row->output == CQIL_OUTPUT_SHORTLIST)
      std::copy_n(workspace.shortlists.get() + place.first_head, place.n_heads, place.row->shortlists);
  }
}

cqil_status compute(Workspace& workspace, const cqil_forward& request) {
  const Batch batch(request, workspace.model.weights.device(), *workspace.inputs);
  workspace.fill_rope(batch.context, batch.end);
  const cqil_output output = request.rows->output;
  const bool plain = output == CQIL_OUTPUT_NONE || output == CQIL_OUTPUT_LOGITS || output == CQIL_OUTPUT_SHORTLIST;
  if (batch.n_tokens == 1 && plain) {
    run_token(workspace, request, batch);
    return CQIL_OK;
  }
  // Several tokens are worth launching one by one: their kernels run longer than a launch takes.
  const Step step = workspace.step(batch);
  send(workspace, sizeof(DeviceInputs));
  run(workspace, step, request, batch, true, [&] { head(workspace, step, batch); });
  const bool cancelled = cqil_cancelled(&request);
  check(cudaStreamSynchronize(workspace.stream.get()), kComputing);
  if (cancelled) return CQIL_ABORTED;
  give(workspace, batch);
  return CQIL_OK;
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
