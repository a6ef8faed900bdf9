// Products with activations rounded to bf16, of every instruction set this machine runs: rounding to the bit, products
// within rounding against float64.
#include "cpu/kernels/bf16_kernels.h"

#include <algorithm>
#include <limits>

#include "aligned_row.h"
#include "check.h"
#include "core/half.h"
#include "cpu/kernels/kernels.h"

using namespace cqil;
using check::Row;

namespace {

// What a rounded row holds, read off products with rows of weights that are 1 in one place.
std::vector<float> held(const RoundedKernels& k, const uint8_t* row, int64_t n) {
  std::vector<uint16_t> ones(static_cast<size_t>(n * n), 0);
  for (int64_t i = 0; i < n; i++) ones[static_cast<size_t>(i * n + i)] = bf16_from_float(1.0f);
  std::vector<float> values(static_cast<size_t>(n));
  k.matvec[CQIL_BF16](reinterpret_cast<const uint8_t*>(ones.data()), n, n, row, values.data());
  return values;
}

void test_round(const RoundedKernels& k, check::Random& random) {
  const std::string name = std::string(k.name) + " bf16 round";
  auto rounds = [&](const std::vector<float>& x, const char* what) {
    const int64_t n = static_cast<int64_t>(x.size());
    Row row(k.row_bytes(n));
    k.round(x.data(), n, row.data);
    CHECK(!row.overrun(), name + " wrote past its end: " + what);
    const std::vector<float> found = held(k, row.data, n);
    bool same = true;
    for (size_t i = 0; i < x.size(); i++) same = same && found[i] == float_from_bf16(bf16_from_float(x[i]));
    CHECK(same, name + ": " + what);
  };
  for (size_t n : {1u, 15u, 16u, 17u, 32u, 33u, 576u}) rounds(random.vector(n, 5), "uniform");
  std::vector<float> ties;
  for (uint32_t i = 0; i < 64; i++) ties.push_back(float_from_bits(0x3f808000u + (i << 16)));
  rounds(ties, "ties go to even");
  std::vector<float> every;
  for (uint32_t exponent = 1; exponent < 254; exponent++)
    every.push_back(
        float_from_bits(exponent << 23 | static_cast<uint32_t>(random.next() >> 41) | (exponent % 2) << 31));
  rounds(every, "every exponent of normal numbers");
  for (float odd : {std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity(),
                    std::numeric_limits<float>::quiet_NaN(), float_from_bits(0x7f800001u)}) {
    std::vector<float> x = random.vector(50), y(1);
    x[37] = odd;
    Row row(k.row_bytes(50));
    k.round(x.data(), 50, row.data);
    const std::vector<uint16_t> w(50, bf16_from_float(1.0f));
    k.matvec[CQIL_BF16](reinterpret_cast<const uint8_t*>(w.data()), 1, 50, row.data, y.data());
    CHECK(std::isnan(odd) ? std::isnan(y[0]) : y[0] == odd, name + ": what is not finite is not hidden");
  }
}

void test_products(const RoundedKernels& k, int64_t n_rows, int64_t cols, int64_t n_tokens, check::Random& random) {
  const std::string name = std::string(k.name) + " bf16 " + std::to_string(n_rows) + "x" + std::to_string(cols) + ", " +
                           std::to_string(n_tokens) + " tokens";
  // Nothing may be read behind the last row.
  std::vector<uint16_t> w(static_cast<size_t>(n_rows * cols));
  for (uint16_t& value : w) value = bf16_from_float(random.uniform());
  const uint8_t* rows = reinterpret_cast<const uint8_t*>(w.data());
  const int64_t stride = k.row_bytes(cols) + 64;
  Row x(n_tokens * stride), panel(kPanelRows * ((cols + 31) / 32 * 32) * 4);
  std::vector<std::vector<float>> tokens;
  for (int64_t t = 0; t < n_tokens; t++) {
    tokens.push_back(random.vector(static_cast<size_t>(cols)));
    k.round(tokens.back().data(), cols, x.data + t * stride);
  }

  const size_t y_stride = static_cast<size_t>(n_rows) + 3;
  std::vector<float> tiled(static_cast<size_t>(n_tokens) * y_stride, 77.0f),
      single(static_cast<size_t>(n_rows) + 1, 77.0f);
  for (int64_t r = 0; r < n_rows; r += k.panel_rows) {
    const int64_t n = std::min(k.panel_rows, n_rows - r);
    k.unpack[CQIL_BF16](rows + r * cols * 2, n, cols, panel.data);
    CHECK(!panel.overrun(), name + ": unpack wrote past its end");
    k.matmul[CQIL_BF16](panel.data, n, {x.data, stride, n_tokens}, cols,
                        {tiled.data() + r, static_cast<int64_t>(y_stride)});
  }

  bool together = true, inside = true;
  for (int64_t t = 0; t < n_tokens; t++) {
    k.matvec[CQIL_BF16](rows, n_rows, cols, x.data + t * stride, single.data());
    const float* tile = tiled.data() + static_cast<size_t>(t) * y_stride;
    together = together && std::memcmp(single.data(), tile, static_cast<size_t>(n_rows) * sizeof(float)) == 0;
    inside = inside && single.back() == 77.0f && tile[n_rows] == 77.0f && tile[n_rows + 2] == 77.0f;
    for (int64_t r = 0; r < n_rows; r++) {
      double sum = 0, magnitude = 0;
      for (int64_t c = 0; c < cols; c++) {
        const double weight = float_from_bf16(w[static_cast<size_t>(r * cols + c)]);
        const double value = float_from_bf16(bf16_from_float(tokens[static_cast<size_t>(t)][static_cast<size_t>(c)]));
        sum += weight * value;
        magnitude += std::fabs(weight * value);
      }
      check::near(single[static_cast<size_t>(r)], sum,
                  (magnitude + std::fabs(sum)) * (static_cast<double>(cols) / 16 + 8) * 6e-8, name);
    }
  }
  CHECK(together, name + ": matmul and matvec differ");
  CHECK(inside, name + ": wrote past the rows");
}

}  // namespace

int main() {
  check::Random random(20240408);
  std::vector<const RoundedKernels*> seen;
  for (int i = 0; i < isa_list().count; i++) {
    const Isa& isa = isa_list().items[i];
    if (!isa.supported) {
      std::printf("skipped: %s: this machine does not run it\n", isa.name);
      continue;
    }
    const RoundedKernels& k = *isa.bf16;
    if (std::find(seen.begin(), seen.end(), &k) != seen.end()) continue;
    seen.push_back(&k);
    test_round(k, random);
    // Around whole steps, and around chunks of a panel.
    for (int64_t cols : {1, 15, 16, 31, 32, 33, 48, 95, 383, 400, 640, 641, 767, 768, 784, 960, 1000, 1296, 2048, 2064})
      for (int64_t n_rows : {1, 3, 4, 15, 16, 17, 33})
        for (int64_t n_tokens : {1, 2, 5, 6, 7, 50}) test_products(k, n_rows, cols, n_tokens, random);
  }
  return check::report("bf16");
}
