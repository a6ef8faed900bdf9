// What the list of the likeliest tokens costs: launch_select alone, by vocabulary and length of the list, as a graph of
// many of them, each of which may begin before the one before has ended. Checked against a sort: random logits, ties,
// NaN and infinities.
#include <cmath>
#include <numeric>

#include "cuda/kernels/select.cu"
#include "experiment.cuh"

namespace {

using namespace experiment;
using cqil::cuda::Step;

constexpr int kInRow = 100;

bool right(const cqil_shortlist& found, std::vector<float> logits, int count) {
  bool finite = true;
  for (float& logit : logits) {
    finite = finite && std::isfinite(logit);
    if (std::isnan(logit)) logit = -INFINITY;
  }
  std::vector<int> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return logits[a] > logits[b]; });
  bool same = found.count == count;
  for (int i = 0; i < count; i++) same = same && found.ids[i] == order[i] && found.logits[i] == logits[order[i]];
  if (!finite) return same && std::isnan(found.log_sum_exp);
  double sum = 0;
  for (float logit : logits) sum += std::exp(static_cast<double>(logit) - logits[order[0]]);
  return same && std::fabs(found.log_sum_exp - logits[order[0]] - std::log(sum)) < 2e-6;
}

std::vector<float> some_logits(int vocab, int kind) {
  std::vector<float> logits(vocab);
  for (int i = 0; i < vocab; i++) {
    logits[i] = 16.0f * uniform(i, kind);
    if (kind == 1) logits[i] = std::floor(logits[i]);
    if (kind == 2 && hash(i, 7) % 50 == 0) logits[i] = hash(i, 8) % 2 ? NAN : -INFINITY;
    if (kind == 3 && i % 96 == 5) logits[i] += 40.0f;
  }
  if (kind == 2) logits[vocab / 3] = INFINITY;
  return logits;
}

bool measure(Step& step, int vocab, int count, cudaStream_t stream) {
  step.model.vocab_size = vocab;
  cqil::cuda::DeviceToken token = {};
  token.listed = count;
  CHECK(cudaMemcpy(step.workspace.inputs, &token, sizeof token, cudaMemcpyHostToDevice));
  printf("%8d %6d", vocab, count);
  bool all_right = true;
  for (int kind = 0; kind < 4; kind++) {
    const std::vector<float> logits = some_logits(vocab, kind);
    CHECK(cudaMemcpy(step.workspace.logits, logits.data(), 4 * logits.size(), cudaMemcpyHostToDevice));
    CHECK(cudaMemset(step.workspace.shortlists, 0xff, sizeof(cqil_shortlist)));
    cudaGraph_t graph;
    cudaGraphExec_t ready;
    CHECK(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal));
    for (int i = 0; i < kInRow; i++) CHECK(cqil::cuda::launch_select(step, 0, 1, stream));
    CHECK(cudaStreamEndCapture(stream, &graph));
    CHECK(cudaGraphInstantiate(&ready, graph, 0));
    const float us = microseconds(5, 4, stream, [&](int) { CHECK(cudaGraphLaunch(ready, stream)); }) / kInRow;
    all_right = all_right && right(fetch(step.workspace.shortlists, 1)[0], logits, count);
    printf(" %11.2f", us);
    CHECK(cudaGraphExecDestroy(ready));
    CHECK(cudaGraphDestroy(graph));
    if (kind == 3) printf("  %s\n", all_right ? "right" : "WRONG");
  }
  fflush(stdout);
  return all_right;
}

}  // namespace

// What the library computes from a model's shape.
uint32_t cqil::cuda::shared_bytes(const Step& step) {
  return static_cast<uint32_t>((kReduceFloats + step.stage_floats) * 4 + kWarps * step.ring_bytes);
}

int main() {
  const cudaDeviceProp properties = device();
  Step step = {};
  step.multiprocessors = properties.multiProcessorCount, step.n_tokens = 1;
  step.overlaps = properties.major >= 9;
  const int most = static_cast<int>(properties.sharedMemPerBlockOptin);
  step.ring_bytes = cqil::cuda::kLeastRing;
  step.stage_floats = (most - cqil::cuda::kWarps * step.ring_bytes) / 4 - cqil::cuda::kReduceFloats;
  step.workspace.inputs = allocate<cqil::cuda::DeviceInputs>(1);
  step.workspace.logits = allocate<float>(262144);
  step.workspace.shortlists = allocate<cqil_shortlist>(1);
  step.workspace.select_partials = allocate<float>(size_t{cqil::cuda::kSelectSlices} * cqil::cuda::kSelectStride);
  step.workspace.grid_arrivals = allocate<uint32_t>(cqil::cuda::kSelectArrivals + 1);
  CHECK(cudaMemset(step.workspace.grid_arrivals, 0, 4 * (cqil::cuda::kSelectArrivals + 1)));
  CHECK(cqil::cuda::prepare_select(most));
  cudaStream_t stream;
  CHECK(cudaStreamCreate(&stream));
  printf("us of one launch_select on %s\n%8s %6s %11s %11s %11s %11s\n", properties.name, "logits", "listed", "random",
         "ties", "not finite", "uneven");
  bool all_right = true;
  for (int vocab : {49152, 128256, 262144})
    for (int count : {1, 40, 64}) all_right = measure(step, vocab, count, stream) && all_right;
  return all_right ? 0 : 1;
}
