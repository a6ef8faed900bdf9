// Every CUDA kernel: each phase against float64 (cuda_kernels_phases.h), selection, the executions against each other
// to the bit, and products beside the CPU's own; compiled with nvcc on a GPU, and by a C++ compiler on the emulated
// one. Outputs are poisoned before each launch, so that an element that nobody wrote is not a number afterwards.
#include "cpu/kernels/kernels.h"
#include "cuda/kernels/common/cut_shape.h"
#include "cuda_kernels_cases.h"
#include "cuda_kernels_phases.h"
#include "cuda_kernels_select.h"

using namespace check;

namespace {

// One token: the kernels one by one, wide and lane by lane, and the persistent kernel give the same bits everywhere.
void test_executions(Bench& b) {
  const DeviceWorkspace& s = b.s();
  const std::vector<cqil_phase> phases = {{CQIL_EMBED, -1, 0, 1},
                                          {CQIL_QKV, 0, 0, b.c.lanes},
                                          {CQIL_ATTENTION, 0, 0, b.c.lanes},
                                          {CQIL_ATTENTION_OUT, 0, 0, b.c.lanes},
                                          {CQIL_GATE_UP, 0, 0, b.c.lanes},
                                          {CQIL_DOWN, 0, 0, b.c.lanes},
                                          {CQIL_HEAD, -1, 0, 1}};
  b.tokens[0].id = b.random.below(b.c.vocab_size), b.tokens[0].listed = 3;
  b.send_tokens();
  const std::vector<uint8_t> keys = b.read_cache(b.cache.keys), values = b.read_cache(b.cache.values);
  struct Result {
    FloatVector x, logits;
    std::vector<uint8_t> keys, values;
  };
  auto run = [&](auto body) {
    write(b.cache.keys, keys);
    write(b.cache.values, values);
    b.poison(s.x, 1, s.dim_stride, b.c.dim);
    b.poison(s.query, b.lane_rows(), s.query_stride, 0);
    b.poison(s.attention, b.lane_rows(), s.attention_stride, b.c.n_heads * b.c.head_dim);
    b.poison(s.attention_out, b.lane_rows(), s.dim_stride, b.c.dim);
    b.poison(s.gate_up, b.lane_rows(), s.hidden_stride, b.c.hidden_dim);
    b.poison(s.logits, 1, b.c.vocab_size, b.c.vocab_size);
    body();
    return Result{read(s.x, s.dim_stride), read(s.logits, b.c.vocab_size), b.read_cache(b.cache.keys),
                  b.read_cache(b.cache.values)};
  };
  auto stage = [&](const LaneRange& lanes) {
    device_ok(launch_qkv(b.step, lanes, nullptr), "qkv");
    device_ok(launch_attention(b.step, lanes, nullptr), "attention");
    device_ok(launch_attention_out(b.step, lanes, nullptr), "attention_out");
  };
  const Result wide = run([&] {
    device_ok(launch_embed(b.step, nullptr), "embed");
    stage(b.lanes);
    device_ok(launch_gate_up(b.step, b.lanes, nullptr), "gate_up");
    device_ok(launch_down(b.step, b.lanes, nullptr), "down");
    device_ok(launch_head(b.step, 0, 1, nullptr), "head");
  });
  const Result apart = run([&] {
    device_ok(launch_embed(b.step, nullptr), "embed");
    for (int lane = 0; lane < b.c.lanes; lane++) stage({0, lane, 1});
    for (int lane = b.c.lanes - 1; lane >= 0; lane--) {
      device_ok(launch_gate_up(b.step, {0, lane, 1}, nullptr), "gate_up");
      device_ok(launch_down_apart(b.step, {0, lane, 1}, nullptr), "down_apart");
    }
    device_ok(launch_join(b.step, b.c.lanes, nullptr), "join");
    device_ok(launch_head(b.step, 0, 1, nullptr), "head");
  });
  auto expect_same = [&](const Result& other, const std::string& which) {
    that(same_bits(wide.x, other.x), b.name + which + " x");
    that(same_bits(wide.logits, other.logits), b.name + which + " logits");
    that(same_bits(wide.keys, other.keys) && same_bits(wide.values, other.values), b.name + which + " cache");
  };
  expect_same(apart, " lanes");
  bool finite = true;
  for (float v : wide.logits) finite = finite && std::isfinite(v);
  that(finite, b.name + " logits are numbers");
  if (token_supported(b.step.model)) {
    const cqil_phase* device_phases = b.model.keep(to_device(phases));
    expect_same(run([&] {
                  device_ok(
                      launch_token(b.step, {device_phases, static_cast<int32_t>(phases.size()), true, true}, nullptr),
                      "token");
                }),
                " persistent");
    const cqil_shortlist list = read(s.shortlists, 1)[0];
    const auto best = std::max_element(wide.logits.begin(), wide.logits.end());
    that(list.count == 3 && list.ids[0] == best - wide.logits.begin() && list.logits[0] == *best,
         b.name + " persistent selection");
  }

  device_ok(launch_barriers(b.step, 5, nullptr), "barriers");
  that(read(s.grid_arrivals, 1)[0] % 0x80000000u == 0, b.name + " the barrier's counter is left at rest");
}

// The product of one token beside the CPU's own kernel.
void test_cpu_twin(Bench& b) {
  const HostMatrix& w = b.model.layers[0].wo;
  const FloatVector in = b.randomize(b.s().attention, b.lane_rows(), b.s().attention_stride, w.cols);
  device_ok(launch_attention_out(b.step, {0, 0, 1}, nullptr), "attention_out");
  const FloatVector found = read(b.s().attention_out, b.c.dim);
  FloatVector x(in.begin(), in.begin() + w.cols), y(static_cast<size_t>(w.rows));
  x.resize(static_cast<size_t>(padded(w.cols)), 0.0f);
  best_kernels().matvec[w.dtype](w.file.data(), row_bytes(w.dtype, w.cols), w.rows, w.cols, x.data(), y.data());
  Doubles expected(y.begin(), y.end());
  for (size_t i = 0; i < expected.size() && !b.model.layers[0].bo.empty(); i++)
    expected[i] += static_cast<double>(b.model.layers[0].bo[i]);
  close(found, expected, 1e-5, b.name + " beside the CPU");
}

void run_case(const Case& c, const std::vector<int>& token_counts, const cudaDeviceProp& on, Random& random) {
  for (int n_tokens : token_counts) {
    Bench b(c, n_tokens, on, random);
    test_embed(b);
    test_attention(b);
    test_products(b);
    if (n_tokens > 1) continue;
    test_cpu_twin(b);
    test_extremes(b);
    test_select(b, 1 + random.below(CQIL_MAX_SHORTLIST));
    test_executions(b);
  }
}

}  // namespace

int main() {
  int devices = 0;
  const cudaError_t code = cudaGetDeviceCount(&devices);
  if (code != cudaSuccess || devices == 0) {
    std::printf("skipped: cuda_kernels: no CUDA device (error %d)\n", static_cast<int>(code));
    return 77;
  }
  cudaDeviceProp on;
  device_ok(cudaGetDeviceProperties(&on, 0), "properties");
  device_ok(prepare_kernels(static_cast<int32_t>(on.sharedMemPerBlockOptin)), "prepare");
  Random random(20240406);
  for (const Case& c : kCases) run_case(c, {1, 3}, on, random);
  // Several tiles of few tokens, and of many.
  for (int i : {0, 2, 3, 5}) run_case(kCases[i], {35}, on, random);
  run_case(kCases[1], {131}, on, random);
  for (const Case& c : kLarge) {
    Bench b(c, 1, on, random);
    test_gate_up(b);
    test_down(b);
  }
  for (const Case& c : kLongRows) {
    Bench b(c, 1, on, random);
    test_products(b);
  }
  DeviceModel wide = {};
  wide.dim = wide.hidden_dim = 4096, wide.n_heads = 32, wide.head_dim = 128, wide.format = CQIL_BF16;
  that(cut_sums_fit(wide, kPartialSums / 4) && !cut_sums_fit(wide, kPartialSums / 4 + 1),
       "as many lanes as there is room for sums of");
  wide.dim = 2048;
  that(cut_sums_fit(wide, 1000), "any number of lanes whose rows are not cut");
  for (const Case& c : kManyRows) {
    Bench b(c, 1, on, random, kLittleShared);
    test_attention_out(b);
    test_down(b);
  }
  for (const Case& c : kVocabularies) {
    Bench b(c, 1, on, random);
    test_select_kinds(b);
  }
  cqil_shape shape = Bench(kVocabularies[0], 1, on, random).model.shape();
  shape.vocab_size = 262144;
  that(shared_plan(shape, 1, kLittleShared).stage_floats > 0, "a large vocabulary fits little shared memory");
  shape.vocab_size = 3000000;
  that(shared_plan(shape, 1, 232448).stage_floats == 0, "a vocabulary whose slices do not fit shared memory");
  return report("cuda_kernels");
}
