// Streams, events and graphs as dependencies between closures. Work is put off for as long as the rules allow and then
// run in a random order among what is ready, so that an ordering somebody forgot shows up as a wrong result.
#include "cuda_emulated_state.h"

#include "cuda_emulator.h"

using emulator::Capture;
using emulator::Node;
using emulator::NodePointer;
using emulator::run_until;
using emulator::state;

struct CUevent_st {
  std::vector<NodePointer> tail;
  std::shared_ptr<Capture> capture;
};
struct CUgraph_st {
  std::vector<NodePointer> nodes;
};
struct CUgraphExec_st {
  std::vector<NodePointer> nodes;
};

namespace emulator {

State state;

namespace {

size_t below(size_t n) {
  state.random ^= state.random << 13;
  state.random ^= state.random >> 7;
  state.random ^= state.random << 17;
  return state.random % n;
}

void run(const NodePointer& node) {
  if (state.until_failure > 0 && --state.until_failure == 0) state.failed = state.failure;
  if (state.failed == cudaSuccess) node->run();
  state.work_done++;
  node->done = true;
  node->after.clear();
}

bool ready(const Node& node) {
  for (const NodePointer& earlier : node.after)
    if (!earlier->done) return false;
  return true;
}

}  // namespace

void run_until(const std::vector<NodePointer>& wanted) {
  auto waiting = [&] {
    for (const NodePointer& node : wanted)
      if (!node->done) return true;
    return false;
  };
  while (waiting()) {
    std::vector<size_t> candidates;
    for (size_t i = 0; i < state.pending.size(); i++)
      if (ready(*state.pending[i])) candidates.push_back(i);
    const size_t chosen = candidates[below(candidates.size())];
    const NodePointer node = state.pending[chosen];
    state.pending.erase(state.pending.begin() + static_cast<long>(chosen));
    run(node);
  }
}

void run_all() { run_until(std::vector<NodePointer>(state.pending)); }

NodePointer add(cudaStream_t stream, std::function<void()> body) {
  auto node = std::make_shared<Node>();
  node->run = std::move(body);
  node->after = stream->tail;
  stream->tail = {node};
  (stream->capture ? stream->capture->nodes : state.pending).push_back(node);
  return node;
}

Machine& machine() { return state.machine; }

void fail_after(int calls, cudaError_t code) {
  state.until_failure = calls;
  state.failure = code;
}

void repair() {
  state.until_failure = -1;
  state.failed = cudaSuccess;
}

int live_objects() {
  return state.others +
         static_cast<int>(state.streams.size() + state.device_memory.size() + state.pinned_memory.size());
}

int work_done() { return state.work_done; }
size_t device_bytes() { return state.used; }

// Every emulated kernel launch comes here.
void enqueue(cudaStream_t stream, std::function<void()> body) {
  if (stream) add(stream, std::move(body));
  else body();  // the default stream, which only tests of single kernels use
}

}  // namespace emulator

namespace {

template <class T>
cudaError_t make(T** out) {
  *out = new T();
  state.others++;
  return state.failed;
}

template <class T>
cudaError_t destroy(T* object) {
  state.others--;
  delete object;
  return cudaSuccess;
}

void collect(const std::vector<NodePointer>& from, std::set<const Node*>& into) {
  for (const NodePointer& node : from)
    if (into.insert(node.get()).second) collect(node->after, into);
}

}  // namespace

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  *stream = new CUstream_st();
  state.streams.insert(*stream);
  return state.failed;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  state.streams.erase(stream);
  delete stream;
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  if (stream->capture) {
    stream->capture->broken = true;
    return cudaErrorStreamCaptureUnsupported;
  }
  run_until(stream->tail);
  return state.failed;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  if (event->capture != stream->capture) {
    if (stream->capture) return cudaErrorStreamCaptureIsolation;
    stream->capture = event->capture;
    stream->tail.clear();
  }
  stream->tail.insert(stream->tail.end(), event->tail.begin(), event->tail.end());
  return state.failed;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) { return make(event); }
cudaError_t cudaEventDestroy(cudaEvent_t event) { return destroy(event); }

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  event->tail = stream->tail;
  event->capture = stream->capture;
  return state.failed;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  if (event->capture) return cudaErrorCapturedEvent;
  run_until(event->tail);
  return state.failed;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  if (stream->capture) return cudaErrorInvalidValue;
  run_until(stream->tail);  // a graph's nodes come after nothing outside it
  stream->tail.clear();
  stream->capture = std::make_shared<Capture>();
  stream->capture->origin = stream;
  return state.failed;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  const std::shared_ptr<Capture> capture = stream->capture;
  if (!capture || capture->origin != stream) return cudaErrorStreamCaptureUnmatched;
  std::set<const Node*> joined;
  collect(stream->tail, joined);
  for (cudaStream_t other : state.streams) {
    if (other->capture != capture) continue;
    other->capture = nullptr;  // streams that were forked leave the capture with it
    other->tail.clear();
  }
  if (capture->broken) return cudaErrorStreamCaptureInvalidated;
  if (joined.size() != capture->nodes.size()) return cudaErrorStreamCaptureUnjoined;
  const cudaError_t code = make(graph);
  (*graph)->nodes = capture->nodes;
  return code;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph, unsigned long long) {
  const cudaError_t code = make(exec);
  (*exec)->nodes = graph->nodes;
  return code;
}

cudaError_t cudaGraphUpload(cudaGraphExec_t, cudaStream_t) { return state.failed; }

cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  std::map<const Node*, NodePointer> copies;
  std::vector<NodePointer> all;
  for (const NodePointer& node : exec->nodes) {
    auto copy = std::make_shared<Node>();
    copy->run = node->run;
    copy->after = stream->tail;
    for (const NodePointer& earlier : node->after) copy->after.push_back(copies.at(earlier.get()));
    copies[node.get()] = copy;
    all.push_back(copy);
    state.pending.push_back(copy);
  }
  stream->tail = std::move(all);
  return state.failed;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) { return destroy(graph); }
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) { return destroy(exec); }
