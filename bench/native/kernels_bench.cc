// Every kernel on every instruction set this machine runs, timed with a cold cache: one thread walks a working set
// larger than the caches once per pass, as a decoded token walks the weights. Prints one JSON document and judges
// nothing.
//   kernels_bench [MiB of the working set, default 128 [part of a kernel's name, default all [dtype, default all]]]
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "core/dtype.h"
#include "core/random_weights.h"
#include "cpu/bandwidth.h"
#include "cpu/kernels/kernels.h"
#include "cpu/kernels/rounded_kernels.h"

using namespace cqil;

namespace {

constexpr int64_t kCols = 4096;       // width of a row of weights or activations
constexpr int64_t kTokens = 128;      // of a matmul
constexpr int64_t kPositions = 2048;  // a head attends to
constexpr int32_t kHeadDim = 128;
constexpr int64_t kVocabulary = 32768;
constexpr size_t kMinPasses = 3;
constexpr double kSeconds = 0.3;  // of timed passes, at least

const char* only_kernel = "";
const char* only_dtype = "";

struct Subject {
  const char* kernel;
  const char* dtype;
  double bytes;  // of the working set that a pass reads
  double flops;  // of a pass; 0 where bytes are what counts
  std::function<void(const Kernels&)> pass;
};

double seconds_of(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Seconds of each pass, ascending. The first pass, which meets cold code and page tables, is not counted.
std::vector<double> time_passes(const std::function<void()>& pass) {
  pass();
  std::vector<double> seconds;
  for (double total = 0; total < kSeconds || seconds.size() < kMinPasses; total += seconds.back())
    seconds.push_back(seconds_of(pass));
  std::sort(seconds.begin(), seconds.end());
  return seconds;
}

void print_row(const Subject& subject, const char* isa, const std::function<void()>& pass) {
  if (!std::strstr(subject.kernel, only_kernel) || (*only_dtype && std::strcmp(subject.dtype, only_dtype) != 0)) return;
  static bool first = true;
  const std::vector<double> s = time_passes(pass);
  const double median = (s[(s.size() - 1) / 2] + s[s.size() / 2]) / 2;
  std::printf(
      "%s\n  {\"kernel\": \"%s\", \"dtype\": \"%s\", \"isa\": \"%s\", \"bytes\": %.0f, \"flops\": %.0f, \"passes\": "
      "%zu, "
      "\"seconds\": {\"median\": %.9f, \"min\": %.9f, \"max\": %.9f}}",
      first ? "" : ",", subject.kernel, subject.dtype, isa, subject.bytes, subject.flops, s.size(), median, s.front(),
      s.back());
  first = false;
}

// Instruction sets share tables: each table is timed once, under its own name.
template <class Table>
void each_table(const Table* Isa::* table, const std::function<void(const Table&)>& time) {
  std::vector<const Table*> seen;
  for (int i = 0; i < isa_list().count; i++) {
    const Isa& isa = isa_list().items[i];
    const Table* own = isa.*table;
    if (!isa.supported || std::find(seen.begin(), seen.end(), own) != seen.end()) continue;
    seen.push_back(own);
    time(*own);
  }
}

void report(const Subject& subject) {
  each_table<Kernels>(&Isa::kernels, [&](const Kernels& k) { print_row(subject, k.name, [&] { subject.pass(k); }); });
}

// One half of the rows are keys, the other values: [heads, kPositions, kHeadDim], a dtype's blocks being the same in a
// KV cache.
void report_attend(const char* kernel, const std::vector<uint8_t>& rows, cqil_dtype dtype, int32_t n_queries) {
  const int64_t head = kPositions * row_bytes(dtype, kHeadDim), heads = static_cast<int64_t>(rows.size()) / (2 * head);
  const std::vector<float> query(kAttendQueries * kHeadDim, 0.5f);
  std::vector<float> scores(kAttendQueries * kPositions), out(kAttendQueries * kHeadDim);
  AttendArgs args = {};
  args.query = query.data();
  args.query_stride = args.stride = args.out_stride = args.head_dim = kHeadDim;
  args.n_queries = n_queries;
  args.last = static_cast<int32_t>(kPositions) - n_queries;
  args.step = 0;
  args.scale = 1 / std::sqrt(static_cast<float>(kHeadDim));
  args.scores = scores.data();
  args.scores_stride = kPositions;
  args.out = out.data();
  report({kernel, dtype_info(dtype).name, static_cast<double>(2 * heads * head), 0, [&](const Kernels& k) {
            for (int64_t h = 0; h < heads; h++) {
              args.keys = rows.data() + h * head;
              args.values = rows.data() + (heads + h) * head;
              k.attend[dtype](args);
            }
          }});
}

// Packed weights against one vector, and unpacked panel by panel as prefill does, into memory that stays in the cache.
void report_weights(cqil_dtype dtype, int64_t working_set) {
  const int64_t bytes = row_bytes(dtype, kCols), rows = working_set / bytes / kPanelRows * kPanelRows;
  std::vector<uint8_t> weights(static_cast<size_t>(rows * bytes));
  fill_random(weights.data(), dtype, rows, kCols, 1);
  std::vector<float> x(kCols, 0.5f), y(static_cast<size_t>(rows)), panel(kPanelRows * kCols);
  const double read = static_cast<double>(weights.size());
  const char* name = dtype_info(dtype).name;
  report({"matvec", name, read, 0,
          [&](const Kernels& k) { k.matvec[dtype](weights.data(), bytes, rows, kCols, x.data(), y.data()); }});
  report({"unpack", name, read, 0, [&](const Kernels& k) {
            for (int64_t r = 0; r < rows; r += kPanelRows)
              k.unpack[dtype](weights.data() + r * bytes, bytes, kPanelRows, kCols, panel.data());
          }});
  if (!best_kernels().attend[dtype]) return;
  report_attend("attend", weights, dtype, 1);
  report_attend("attend, queries together", weights, dtype, kAttendQueries);
}

// Products with rounded activations: rows as they stand, or are interleaved, against one vector, and as panels against
// many.
void report_rounded(const RoundedKernels* Isa::* table, const char* rounding, cqil_dtype dtype, int64_t working_set) {
  if (!(best_isa().*table)->matvec[dtype]) return;
  const int64_t bytes = row_bytes(dtype, kCols), rows = working_set / bytes / kMostPanelRows * kMostPanelRows;
  std::vector<uint8_t> weights(static_cast<size_t>(rows * bytes)), interleaved(weights.size()), x,
      panel(kPanelRows * kCols * sizeof(float) + 64);
  auto aligned = [](std::vector<uint8_t>& v) {
    return v.data() + (64 - reinterpret_cast<uintptr_t>(v.data()) % 64) % 64;
  };
  fill_random(weights.data(), dtype, rows, kCols, 1);
  const std::vector<float> values(kCols, 0.5f);
  std::vector<float> y(static_cast<size_t>(kTokens * rows));
  const double read = static_cast<double>(weights.size());
  const char* name = dtype_info(dtype).name;
  auto subject = [&](const std::string& kernel, double flops, const RoundedKernels& k,
                     const std::function<void()>& pass) {
    print_row({(kernel + ", " + rounding).c_str(), name, read, flops, nullptr}, k.name, pass);
  };
  each_table<RoundedKernels>(table, [&](const RoundedKernels& k) {
    const int64_t stride = k.row_bytes(kCols);
    x.assign(static_cast<size_t>(kTokens * stride + 64), 0);
    uint8_t *const input = aligned(x), *const unpacked = aligned(panel);
    for (int64_t t = 0; t < kTokens; t++) k.round(values.data(), kCols, input + t * stride);
    if (k.interleave[dtype])
      subject("interleave", 0, k, [&] { k.interleave[dtype](weights.data(), bytes, rows, kCols, interleaved.data()); });
    const uint8_t* from = k.interleave[dtype] ? interleaved.data() : weights.data();
    subject("matvec", 0, k, [&] { k.matvec[dtype](from, rows, kCols, input, y.data()); });
    subject("unpack and matmul", 2.0 * static_cast<double>(rows * kCols * kTokens), k, [&] {
      for (int64_t r = 0; r < rows; r += k.panel_rows) {
        k.unpack[dtype](from + r * bytes, k.panel_rows, kCols, unpacked);
        k.matmul[dtype](unpacked, k.panel_rows, {input, stride, kTokens}, kCols, {y.data() + r, rows});
      }
    });
  });
}

// float32 rows [rows, kCols].
void report_floats(int64_t working_set) {
  const int64_t rows = working_set / (kCols * 4) / kPanelRows * kPanelRows, half = rows / 2 * kCols;
  std::vector<float> set(static_cast<size_t>(rows * kCols)), x(kTokens * kCols, 0.5f),
      y(static_cast<size_t>(kTokens * rows));
  const double bytes = static_cast<double>(rows * kCols * 4);
  // The kernels that write to the set begin with fresh values, and none of their values ever becomes subnormal, which
  // would be slow.
  auto fill = [&] { fill_random(set.data(), CQIL_F32, rows, kCols, 2); };

  fill();
  report({"matmul", "F32", bytes, 2.0 * static_cast<double>(rows * kCols * kTokens), [&](const Kernels& k) {
            for (int64_t r = 0; r < rows; r += kPanelRows)
              k.matmul(set.data() + r * kCols, kPanelRows, {x.data(), kCols, kTokens}, kCols, {y.data() + r, rows});
          }});
  report({"rms_norm", "F32", bytes, 0, [&](const Kernels& k) {
            for (int64_t r = 0; r < rows; r++) k.rms_norm(set.data() + r * kCols, x.data(), kCols, 1e-5f, y.data());
          }});
  report({"log_sum_exp", "F32", bytes, 0, [&](const Kernels& k) {
            for (int64_t i = 0; i + kVocabulary <= rows * kCols; i += kVocabulary)
              y[static_cast<size_t>(i / kVocabulary)] = static_cast<float>(k.log_sum_exp(set.data() + i, kVocabulary));
          }});

  report({"add", "F32", bytes, 0, [&](const Kernels& k) { k.add(set.data(), set.data() + half, half); }});
  fill();
  // 2 SiLU(g) = g + g^2 / 2 near zero: there the values hardly move however many the passes.
  std::fill(set.begin() + half, set.end(), 2.0f);
  report({"silu_mul", "F32", bytes, 0,
          [&](const Kernels& k) { k.activate_mul[CQIL_SILU](set.data(), set.data() + half, half); }});
}

}  // namespace

int main(int argc, char** argv) {
  const int64_t mib = argc > 1 ? std::atoll(argv[1]) : 128;
  if (argc > 4 || mib < 8 || mib > 4096) {
    std::fprintf(
        stderr, "usage: kernels_bench [size of the working set in MiB, 8 to 4096 [part of a kernel's name [dtype]]]\n");
    return 2;
  }
  if (argc > 2) only_kernel = argv[2];
  if (argc > 3) only_dtype = argv[3];
  const int64_t working_set = mib << 20;
  std::printf("{\"workingSetBytes\": %lld, \"rows\": [", static_cast<long long>(working_set));
  // What a shared machine lets one thread read differs from second to second: the best of a measurement before every
  // dtype.
  double bandwidth = 0;
  for (int i = 0; i < CQIL_DTYPE_COUNT; i++) {
    bandwidth = std::max(bandwidth, measure_read_bandwidth(1, static_cast<uint64_t>(working_set)));
    report_weights(static_cast<cqil_dtype>(i), working_set);
    report_rounded(&Isa::bf16, "bf16", static_cast<cqil_dtype>(i), working_set);
    report_rounded(&Isa::int8, "int8", static_cast<cqil_dtype>(i), working_set);
  }
  report_floats(working_set);
  std::printf("\n], \"bandwidthGBs\": %.3f}\n", bandwidth);
  return 0;
}
