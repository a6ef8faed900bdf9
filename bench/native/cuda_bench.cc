// Milliseconds per token of known shapes on one GPU, for every plan and execution, against the floor: bytes that must
// be read over the bandwidth measured here. ms/token and device are greedy; beside them with a shortlist of 40 and with
// all logits. Prefill in tokens/s, by cuBLASLt where the machine has it, and by the kernels alone. Prints a table,
// writes JSON, judges nothing.
//   cuda_bench OUTPUT.json [shape ...]
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "core/dtype.h"
#include "core/program.h"
#include "core/schedule.h"
#include "cuda_bench_model.h"
#include "cuda_probe.h"

extern "C" const cqil_backend* cqil_backend_entry();

namespace {

using namespace cqil;
using bench::RandomModel;
using bench::Shape;

constexpr int32_t kContext = 128;  // tokens before the first that is timed
constexpr int32_t kTokens = 32;    // timed per round
constexpr int kRounds = 5;
constexpr cqil_dtype kKvDtype = CQIL_F16;

// The shapes of lib/checkpoint/synthetic.ts; groups as published for 7B, from an eighth of the layers on for small
// models.
const Shape kShapes[] = {
    {"smollm2-135m", CQIL_BF16, 30, 576, 1536, 9, 3, 49152, true, 4, 28},
    {"tinyllama-1.1b", CQIL_BF16, 22, 2048, 5632, 32, 4, 32000, false, 4, 20},
    {"llama-7b", CQIL_BF16, 32, 4096, 11008, 32, 32, 32000, false, 12, 30},
    {"llama-7b", CQIL_Q4_0, 32, 4096, 11008, 32, 32, 32000, false, 12, 30},
    {"llama-13b", CQIL_BF16, 40, 5120, 13824, 40, 40, 32000, false, 14, 38},
    {"llama-33b", CQIL_BF16, 60, 6656, 17920, 52, 52, 32000, false, 20, 56},
};
const char* const kExecutionNames[] = {"wide", "lanes", "persistent"};

void expect(cqil_status status, const cqil_error& error) {
  if (status != CQIL_OK) throw cuda::Failure(status, error.text);
}

// The backend's model and sessions, freed in order.
struct Closer {
  void operator()(cqil_backend_model* model) const { cqil_backend_entry()->model_destroy(model); }
  void operator()(cqil_backend_workspace* workspace) const { cqil_backend_entry()->workspace_destroy(workspace); }
  void operator()(cqil_backend_cache* cache) const { cqil_backend_entry()->cache_destroy(cache); }
};
using ModelPointer = std::unique_ptr<cqil_backend_model, Closer>;
// One text in a workspace of its own.
struct OneSession {
  std::unique_ptr<cqil_backend_workspace, Closer> workspace;
  std::unique_ptr<cqil_backend_cache, Closer> cache;
  // What a workspace is behind the C table.
  cuda::Workspace& on_device() const { return *reinterpret_cast<cuda::Workspace*>(workspace.get()); }
};
using SessionPointer = std::unique_ptr<OneSession>;

// base: null, or a model of the same weights, which are then shared.
ModelPointer make_model(const RandomModel& random, cqil_backend_model* base = nullptr) {
  cqil_backend_model* model = nullptr;
  cqil_error error = {};
  cqil_model_options options = {};
  options.base = base;
  expect(cqil_backend_entry()->model_create(&random.weights, &options, &model, &error), error);
  return ModelPointer(model);
}

SessionPointer make_session(cqil_backend_model* model, const Program& program) {
  cqil_backend_workspace* workspace = nullptr;
  cqil_backend_cache* cache = nullptr;
  cqil_error error = {};
  const cqil_program view = program.view();
  cqil_cache_options options = {};
  options.context_length = 2 * kContext;
  options.kv_dtype = kKvDtype;
  auto session = std::make_unique<OneSession>();
  expect(cqil_backend_entry()->workspace_create(model, &view, &workspace, &error), error);
  session->workspace.reset(workspace);
  expect(cqil_backend_entry()->cache_create(workspace, &options, &cache, &error), error);
  session->cache.reset(cache);
  return session;
}

// What a token or prompt gives: all logits, or a shortlist of `listed` of them.
struct Wanted {
  std::vector<float>& logits;
  int32_t listed;  // 0: all
};
const int32_t kListed[] = {1, 40, 0};  // greedy, the default of generate, and what session.decode gives
constexpr int kOutputs = 3;

double forward_ms(const Program& program, const OneSession* session, const std::vector<int32_t>& ids, int32_t position,
                  cqil_execution execution, const Wanted& wanted) {
  Schedule schedule;
  // A device shares out its work by itself, whatever the sizes.
  place(program, {execution, 0}, {}, {position, static_cast<int32_t>(ids.size()), false}, schedule);
  cqil_row row = {};
  row.cache = session->cache.get();
  row.ids = ids.data();
  row.n_ids = static_cast<int32_t>(ids.size());
  row.position = position;
  cqil_shortlist list = {};
  list.count = wanted.listed;
  row.output = wanted.listed > 0 ? CQIL_OUTPUT_SHORTLIST : CQIL_OUTPUT_LOGITS;
  row.result = wanted.logits.data();
  row.shortlists = &list;
  row.n_listed = 1;
  cqil_forward request = {};
  request.rows = &row;
  request.n_rows = 1;
  request.schedule = schedule.view();
  request.execution = execution;
  cqil_error error = {};
  const auto start = std::chrono::steady_clock::now();
  expect(cqil_backend_entry()->forward(session->workspace.get(), &request, &error), error);
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
}

struct Row {
  std::string plan;
  Program program;
  cqil_execution execution;
  int phases;
  SessionPointer session, by_kernels;  // the second without cuBLASLt
  std::vector<double> ms[kOutputs];    // one per round: the mean of its tokens, what was wanted on the host
  double device_ms;                    // greedy, replays back to back, nothing on the host
  std::vector<double> prefill_ms[2];   // for kContext tokens: by cuBLASLt where there is one, and by the kernels
};

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

void time_shape(const Shape& shape, double read_gbs, FILE* json, bool& first) {
  const RandomModel random(shape);
  const ModelPointer model = make_model(random);
  setenv("CQIL_CUBLASLT", "", 1);
  const ModelPointer by_kernels = make_model(random, model.get());
  unsetenv("CQIL_CUBLASLT");
  std::vector<Row> rows;
  for (int32_t p : {1, 2, 4}) {
    Plan plan;
    for (int32_t layer = shape.first_grouped; p > 1 && layer + p <= shape.end_grouped; layer += p)
      plan.groups.push_back({layer, p});
    const Program program = compile_program(plan, shape.layers);
    const std::string name = p == 1 ? "sequential"
                                    : "P" + std::to_string(p) + "-D0-S" + std::to_string(shape.first_grouped) + "-E" +
                                          std::to_string(shape.end_grouped);
    for (cqil_execution execution : {CQIL_WIDE, CQIL_LANES, CQIL_PERSISTENT}) {
      if (execution == CQIL_LANES && p == 1) continue;
      if (!(cqil_backend_entry()->executions(model.get()) & 1u << execution)) continue;
      rows.push_back({name,
                      program,
                      execution,
                      static_cast<int>(program.phases.size()) - 2,
                      make_session(model.get(), program),
                      make_session(by_kernels.get(), program),
                      {},
                      0,
                      {}});
    }
  }

  std::vector<float> logits(static_cast<size_t>(shape.vocab));
  std::vector<int32_t> prompt;
  for (int32_t i = 0; i < kContext; i++) prompt.push_back((i * 7919 + 13) % shape.vocab);
  // The first round is thrown away.
  for (int round = -1; round < kRounds; round++)
    for (Row& row : rows) {
      const OneSession* const sessions[] = {row.session.get(), row.by_kernels.get()};
      for (size_t i = 0; i < 2; i++) {
        const double ms = forward_ms(row.program, sessions[i], prompt, 0, row.execution, {logits, 0});
        if (round >= 0) row.prefill_ms[i].push_back(ms);
      }
      for (int output = 0; output < kOutputs; output++) {
        const Wanted wanted = {logits, kListed[output]};
        // Two tokens first: the second of an output is captured.
        for (int i = 0; i < 2; i++) forward_ms(row.program, row.session.get(), {1}, kContext, row.execution, wanted);
        double sum = 0;
        for (int32_t i = 0; i < kTokens; i++)
          sum += forward_ms(row.program, row.session.get(), {prompt[static_cast<size_t>(i)]}, kContext + i,
                            row.execution, wanted);
        if (round >= 0) row.ms[output].push_back(sum / kTokens);
      }
    }
  for (Row& row : rows) {
    cuda::Workspace& workspace = row.session->on_device();
    for (int i = 0; i < 2; i++) forward_ms(row.program, row.session.get(), {1}, kContext, row.execution, {logits, 1});
    cudaGraphExec_t const graph = workspace.graph(row.execution, cuda::kShortlist, kKvDtype).exec.get();
    row.device_ms = cuda::median_ms(workspace.stream.get(), kRounds,
                                    [&] {
                                      for (int32_t i = 0; i < kTokens; i++)
                                        cuda::check(cudaGraphLaunch(graph, workspace.stream.get()), "it was measured");
                                    }) /
                    kTokens;
  }

  const double bytes = RandomModel::bytes_per_token(shape, kContext + kTokens / 2), floor_ms = bytes / read_gbs / 1e6;
  const double sequential = median(rows.front().ms[0]);
  for (const Row& row : rows) {
    const double ms = median(row.ms[0]), top40 = median(row.ms[1]), whole = median(row.ms[2]);
    const double prefill[] = {1000.0 * kContext / median(row.prefill_ms[0]),
                              1000.0 * kContext / median(row.prefill_ms[1])};
    std::printf("%-15s %-5s %-14s %-10s %6d %9.3f %9.3f %9.3f %7.0f%% %+7.1f%% %9.3f %9.3f %8.0f %8.0f\n", shape.name,
                dtype_info(shape.dtype).name, row.plan.c_str(), kExecutionNames[row.execution], row.phases, ms,
                row.device_ms, floor_ms, 100 * floor_ms / ms, 100 * (ms / sequential - 1), top40, whole, prefill[0],
                prefill[1]);
    std::fprintf(
        json,
        "%s\n    {\"shape\": \"%s\", \"dtype\": \"%s\", \"plan\": \"%s\", \"execution\": \"%s\", \"phases\": %d, "
        "\"bytesPerToken\": %.0f, "
        "\"floorMs\": %.6f, \"msPerToken\": {\"min\": %.6f, \"median\": %.6f, \"max\": %.6f}, \"deviceMsPerToken\": "
        "%.6f, "
        "\"top40MsPerToken\": %.6f, \"logitsMsPerToken\": %.6f, \"prefillTokensPerSecond\": %.1f, "
        "\"kernelsPrefillTokensPerSecond\": %.1f}",
        first ? "" : ",", shape.name, dtype_info(shape.dtype).name, row.plan.c_str(), kExecutionNames[row.execution],
        row.phases, bytes, floor_ms, *std::min_element(row.ms[0].begin(), row.ms[0].end()), ms,
        *std::max_element(row.ms[0].begin(), row.ms[0].end()), row.device_ms, top40, whole, prefill[0], prefill[1]);
    first = false;
  }
  std::fflush(stdout);
}

cuda::Probe probe() {
  const Shape tiny = {"tiny", CQIL_BF16, 1, 64, 128, 1, 1, 64, true, 0, 0};
  const RandomModel random(tiny);
  const ModelPointer model = make_model(random);
  const SessionPointer session = make_session(model.get(), compile_program(Plan{}, 1));
  return cuda::probe_device(session->on_device());
}

int run(int argc, char** argv) {
  cqil_device device = {};
  int32_t count = 0;
  cqil_error error = {};
  if (cqil_backend_entry()->list_devices(&device, 1, &count, &error) != CQIL_OK) {
    std::printf("skipped: cuda_bench: %s\n", error.text);
    return 77;
  }
  if (argc < 2) {
    std::fprintf(stderr, "usage: cuda_bench OUTPUT.json [shape ...]\n");
    return 2;
  }
  FILE* json = std::fopen(argv[1], "w");
  if (!json) {
    std::perror(argv[1]);
    return 1;
  }
  const cuda::Probe p = probe();
  std::fprintf(json,
               "{\n  \"device\": {\"name\": \"%s\", \"capability\": \"%d.%d\", \"multiprocessors\": %d, "
               "\"memoryBytes\": %llu},\n"
               "  \"probe\": {\"readGBs\": %.1f, \"copyGBs\": %.1f, \"launchUs\": %.3f, \"graphNodeUs\": %.3f, "
               "\"forkJoin2Us\": %.3f, "
               "\"forkJoin4Us\": %.3f, \"gridBarrierUs\": %.3f},\n"
               "  \"workload\": {\"context\": %d, \"tokens\": %d, \"rounds\": %d},\n  \"rows\": [",
               device.name, device.capability_major, device.capability_minor, device.multiprocessors,
               static_cast<unsigned long long>(device.memory_bytes), p.read_gbs, p.copy_gbs, p.launch_us,
               p.graph_node_us, p.fork_join_us[0], p.fork_join_us[1], p.barrier_us, kContext, kTokens, kRounds);
  std::printf(
      "%s: reads %.0f GB/s, copies %.0f GB/s; launch %.2f us, graph node %.2f us, fork and join of 2 %.2f us, of 4 "
      "%.2f us, grid barrier %.2f us\n",
      device.name, p.read_gbs, p.copy_gbs, p.launch_us, p.graph_node_us, p.fork_join_us[0], p.fork_join_us[1],
      p.barrier_us);
  std::printf("%-15s %-5s %-14s %-10s %6s %9s %9s %9s %8s %8s %9s %9s %8s %8s\n", "shape", "dtype", "plan", "execution",
              "phases", "ms/token", "device", "floor", "of floor", "change", "top 40", "logits", "prefill", "kernels");
  bool first = true;
  for (const Shape& shape : kShapes) {
    if (argc > 2 &&
        std::none_of(argv + 2, argv + argc, [&](const char* name) { return std::strcmp(name, shape.name) == 0; }))
      continue;
    try {
      time_shape(shape, p.read_gbs, json, first);
    } catch (const std::exception& failure) {
      std::printf("%-15s %-5s skipped: %s\n", shape.name, dtype_info(shape.dtype).name, failure.what());
    }
  }
  std::fprintf(json, "\n  ]\n}\n");
  std::fclose(json);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const std::exception& failure) {
    std::fprintf(stderr, "cuda_bench: %s\n", failure.what());
    return 1;
  }
}
