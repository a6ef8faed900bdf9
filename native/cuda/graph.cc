#include "graph.h"

namespace cqil::cuda {
namespace {

Graph end_capture(cudaStream_t stream, cudaError_t& code) {
  cudaGraph_t graph = nullptr;
  code = cudaStreamEndCapture(stream, &graph);
  return Graph(graph);
}

}  // namespace

GraphExec capture(cudaStream_t stream, const std::function<void()>& body) {
  const char* const doing = "a token's launches were captured in a graph";
  cudaError_t code = cudaSuccess;
  // Only what this thread does is captured: another may be allocating for a session of its own.
  check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), doing);
  try {
    body();
  } catch (...) {
    end_capture(stream, code);
    cudaGetLastError();
    throw;
  }
  const Graph graph = end_capture(stream, code);
  check(code, doing);
  cudaGraphExec_t exec = nullptr;
  check(cudaGraphInstantiate(&exec, graph.get(), 0), doing);
  GraphExec owned(exec);
  check(cudaGraphUpload(exec, stream), doing);
  return owned;
}

}  // namespace cqil::cuda
