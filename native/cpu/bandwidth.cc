#include "bandwidth.h"

#include <algorithm>
#include <chrono>
#include <memory>
#include <vector>

#include "kernels/kernels.h"
#include "team.h"

namespace cqil {

double measure_read_bandwidth(int threads, uint64_t bytes_per_thread) {
  constexpr int kPasses = 5;
  constexpr int64_t kCols = 4096;  // rows of 16 KB, against one vector that stays in the first cache
  const int64_t rows = std::max<int64_t>(8, static_cast<int64_t>(bytes_per_thread / (kCols * sizeof(float))));
  const Kernels& kernels = best_kernels();
  Team team(threads);
  std::vector<std::vector<float>> weights(static_cast<size_t>(team.size()));
  std::vector<std::vector<float>> sums(static_cast<size_t>(team.size()));
  for (auto& own : sums) own.resize(static_cast<size_t>(rows));
  for (auto& own : weights) own.assign(static_cast<size_t>(rows * kCols), 1.0f);
  const std::vector<float> x(kCols, 0.5f);

  double best = 0;
  for (int pass = 0; pass < kPasses; pass++) {
    const auto start = std::chrono::steady_clock::now();
    team.run(team.size(), [&](int member) {
      const auto m = static_cast<size_t>(member);
      kernels.matvec[CQIL_F32](reinterpret_cast<const uint8_t*>(weights[m].data()), kCols * 4, rows, kCols, x.data(),
                               sums[m].data());
    });
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    const double bytes = static_cast<double>(rows * kCols * 4) * team.size();
    best = std::max(best, bytes / seconds / 1e9);
  }
  return best;
}

}  // namespace cqil
