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

void send(const Session& session, size_t bytes) {
  check(cudaMemcpyAsync(session.device.position, session.inputs.get(), bytes, cudaMemcpyHostToDevice,
                        session.stream.get()),
        kSending);
}

template <class T>
void receive(const Session& session, T* to, const T* from, int64_t count) {
  const auto bytes = static_cast<size_t>(count) * sizeof(T);
  check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, session.stream.get()), kReceiving);
}

// Sends a token, computes it, and brings its logits to session.logits or the `listed` highest of them to
// session.shortlist: what a graph of one token holds. Not to be stopped: the graph is captured whole, and a replay is
// short.
void token(const Session& session, const cqil_forward& request, TokenOutput output, int32_t listed) {
  Step step = session.step(1);
  step.overlaps = session.model.device.overlaps;
  cudaStream_t const stream = session.stream.get();
  send(session, offsetof(Inputs, ids) + sizeof(int32_t));
  if (request.execution == CQIL_PERSISTENT) {
    const TokenRun run = {session.phases.get(), session.n_phases, output == kShortlist ? listed : 0,
                          output != kNothing};
    check(launch_token(step, run, stream), kComputing);
  } else {
    run(session, step, request, false, [&] {
      if (output != kNothing) check(launch_head(step, 0, 1, stream), kComputing);
    });
    if (output == kShortlist) check(launch_select(step, listed, stream), kComputing);
  }
  if (output == kLogits) receive(session, session.logits.get(), session.device.logits, session.model.shape.vocab_size);
  if (output == kShortlist) receive(session, session.shortlist.get(), session.device.shortlist, 1);
}

void run_token(Session& session, const cqil_forward& request) {
  const cqil_row& row = *request.rows;
  const TokenOutput output = row.output == CQIL_OUTPUT_LOGITS      ? kLogits
                             : row.output == CQIL_OUTPUT_SHORTLIST ? kShortlist
                                                                   : kNothing;
  const int32_t listed = output == kShortlist ? row.shortlists->count : 0;
  TokenGraph& graph = session.graphs[request.execution][output];
  if (graph.listed != listed) graph.exec = GraphExec();  // captured for a list of another length
  graph.listed = listed;
  if (graph.warm) {
    if (!graph.exec) graph.exec = capture(session.stream.get(), [&] { token(session, request, output, listed); });
    check(cudaGraphLaunch(graph.exec.get(), session.stream.get()), kComputing);
  } else {
    token(session, request, output, listed);
    graph.warm = true;
  }
  check(cudaStreamSynchronize(session.stream.get()), kComputing);
  if (output == kLogits)
    std::memcpy(row.result, session.logits.get(), static_cast<size_t>(session.model.shape.vocab_size) * sizeof(float));
  if (output == kShortlist) *row.shortlists = *session.shortlist.get();
}

// What follows the last stage, in as many rows of logits at a time as a session holds.
void head(const Session& session, const Step& step, const cqil_row& row) {
  cudaStream_t const stream = session.stream.get();
  const int64_t vocab = step.model.vocab_size;
  const int32_t rows = std::min(session.device.size.batch, CQIL_MAX_LOGIT_ROWS);
  switch (row.output) {
    case CQIL_OUTPUT_NONE:
    case CQIL_OUTPUT_TRACE: return;
    case CQIL_OUTPUT_LOGITS:
      check(launch_head(step, row.n_ids - 1, 1, stream), kComputing);
      return receive(session, row.result, step.session.logits, vocab);
    case CQIL_OUTPUT_SHORTLIST:
      for (int32_t i = 0; i < row.n_listed; i++) {
        check(launch_head(step, row.n_ids - row.n_listed + i, 1, stream), kComputing);
        check(launch_select(step, row.shortlists[i].count, stream), kComputing);
        receive(session, row.shortlists + i, step.session.shortlist, 1);
      }
      return;
    case CQIL_OUTPUT_ALL_LOGITS:
      for (int32_t first = 0; first < row.n_ids; first += rows) {
        const int32_t n = std::min(rows, row.n_ids - first);
        check(launch_head(step, first, n, stream), kComputing);
        receive(session, row.result + first * vocab, step.session.logits, n * vocab);
      }
      return;
    case CQIL_OUTPUT_SCORES:
      for (int32_t first = 0; first < row.n_scores; first += rows) {
        const int32_t n = std::min(rows, row.n_scores - first);
        check(launch_head(step, first, n, stream), kComputing);
        check(launch_scores(step, first, n, stream), kComputing);
      }
      return receive(session, row.result, step.session.scores, row.n_scores);
  }
}

cqil_status compute(Session& session, const cqil_forward& request) {
  const cqil_row& row = *request.rows;
  session.fill_rope(row.position + row.n_ids);
  Inputs& inputs = *session.inputs;
  inputs.position = row.position;
  std::copy_n(row.ids, row.n_ids, inputs.ids);
  std::copy_n(row.targets, row.n_scores, inputs.targets);

  const bool plain =
      row.output == CQIL_OUTPUT_NONE || row.output == CQIL_OUTPUT_LOGITS || row.output == CQIL_OUTPUT_SHORTLIST;
  if (row.n_ids == 1 && plain) {
    run_token(session, request);
    return CQIL_OK;
  }
  // Several tokens are worth launching one by one: their kernels run longer than a launch takes.
  const Step step = session.step(row.n_ids);
  send(session, sizeof inputs);
  run(session, step, request, true, [&] { head(session, step, row); });
  const bool cancelled = cqil_cancelled(&request);
  check(cudaStreamSynchronize(session.stream.get()), kComputing);
  return cancelled ? CQIL_ABORTED : CQIL_OK;
}

}  // namespace

cqil_status forward(Session& session, const cqil_forward& request) {
  if (cqil_cancelled(&request)) return CQIL_ABORTED;
  try {
    return compute(session, request);
  } catch (...) {
    // What was enqueued before the failure still writes to the caller's memory.
    session.drain();
    throw;
  }
}

}  // namespace cqil::cuda
