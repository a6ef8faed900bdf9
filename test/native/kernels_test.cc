// Every kernel of every instruction set this machine runs, against float64, and the fused ones against each other.
#include "cpu/kernels/kernels.h"

#include <algorithm>

#include "check.h"
#include "core/random_weights.h"
#include "dequantize.h"

using namespace cqil;

namespace {

std::vector<const Kernels*> supported() {
  std::vector<const Kernels*> list;
  for (int i = 0; i < isa_list().count; i++)
    if (isa_list().items[i].supported) list.push_back(isa_list().items[i].kernels);
    else std::printf("skipped: %s: this machine does not run it\n", isa_list().items[i].name);
  return list;
}

std::vector<float> pad(const std::vector<float>& x) {
  std::vector<float> result(x);
  result.resize(static_cast<size_t>(padded(static_cast<int64_t>(x.size()))), 0.0f);
  return result;
}

// A row of n products in float32 with 16 partial sums errs by at most about (n / 16 + 4) roundings of the summed magnitudes.
double dot_tolerance(double magnitude, int64_t n) { return magnitude * (static_cast<double>(n) / 16 + 8) * 6e-8; }

void test_products(const Kernels& k, cqil_dtype dtype, int64_t n_rows, int64_t cols, check::Random& random) {
  const std::string name = std::string(k.name) + " " + dtype_info(dtype).name + " " + std::to_string(n_rows) + "x" + std::to_string(cols);
  const int64_t bytes = row_bytes(dtype, cols);
  std::vector<uint8_t> rows(static_cast<size_t>(n_rows * bytes));
  fill_random(rows.data(), dtype, n_rows, cols, random.next());
  const std::vector<double> w = check::dequantize(rows.data(), dtype, n_rows * cols);
  constexpr int64_t kTokens = 11;
  const int64_t stride = padded(cols);
  std::vector<float> x(static_cast<size_t>(kTokens * stride), 0.0f);
  for (int64_t t = 0; t < kTokens; t++)
    for (int64_t c = 0; c < cols; c++) x[static_cast<size_t>(t * stride + c)] = random.uniform();

  std::vector<float> unpacked(static_cast<size_t>(n_rows * stride), -1.0f);
  k.unpack[dtype](rows.data(), bytes, n_rows, cols, unpacked.data());
  double worst = 0;
  for (int64_t r = 0; r < n_rows; r++)
    for (int64_t c = 0; c < stride; c++) {
      const double expected = c < cols ? w[static_cast<size_t>(r * cols + c)] : 0.0;
      const double d = std::fabs(unpacked[static_cast<size_t>(r * stride + c)] - expected);
      worst = std::max(worst, d / (std::fabs(expected) + 1e-2));
    }
  check::near(worst, 0, 1e-6, name + " unpack");

  std::vector<float> tiled(static_cast<size_t>(kTokens * n_rows)), single(static_cast<size_t>(n_rows));
  k.matmul(unpacked.data(), n_rows, x.data(), stride, kTokens, stride, tiled.data(), n_rows);
  bool bits = true;
  for (int64_t t = 0; t < kTokens; t++) {
    k.matvec[dtype](rows.data(), bytes, n_rows, cols, x.data() + t * stride, single.data());
    bits = bits && std::memcmp(single.data(), tiled.data() + t * n_rows, single.size() * sizeof(float)) == 0;
    for (int64_t r = 0; r < n_rows; r++) {
      double sum = 0, magnitude = 0;
      for (int64_t c = 0; c < cols; c++) {
        const double product = w[static_cast<size_t>(r * cols + c)] * x[static_cast<size_t>(t * stride + c)];
        sum += product;
        magnitude += std::fabs(product);
      }
      check::near(single[static_cast<size_t>(r)], sum, dot_tolerance(magnitude, cols), name + " matvec");
    }
  }
  check::that(bits, name + ": matmul and matvec differ");
}

void test_elementwise(const Kernels& k, int64_t n, check::Random& random) {
  const std::string name = std::string(k.name) + " " + std::to_string(n);
  const size_t count = static_cast<size_t>(n);
  const std::vector<float> x = random.vector(count, 4), weight = random.vector(count);

  std::vector<float> out(count + 1, 77.0f);
  k.rms_norm(x.data(), weight.data(), n, 1e-5f, out.data());
  double squares = 0;
  for (float v : x) squares += static_cast<double>(v) * v;
  const double scale = 1 / std::sqrt(squares / static_cast<double>(n) + 1e-5);
  for (size_t i = 0; i < count; i++) check::near(out[i], x[i] * scale * weight[i], 2e-6, name + " rms_norm");
  check::that(out[count] == 77.0f, name + " rms_norm wrote past its end");

  std::vector<float> sum(x);
  k.add(sum.data(), weight.data(), n);
  bool exact = true;
  for (size_t i = 0; i < count; i++) exact = exact && sum[i] == x[i] + weight[i];
  check::that(exact, name + " add");

  std::vector<float> gate = random.vector(count, 30);
  gate[0] = -200;
  const std::vector<float> before(gate);
  k.silu_mul(gate.data(), weight.data(), n);
  for (size_t i = 0; i < count; i++) {
    const double g = before[i], expected = g / (1 + std::exp(-g)) * weight[i];
    check::near(gate[i], expected, std::fabs(expected) * 1e-6 + 1e-7, name + " silu_mul");
  }

  double total = 0;
  for (float v : x) total += std::exp(static_cast<double>(v));
  check::near(k.log_sum_exp(x.data(), n), std::log(total), 2e-6, name + " log_sum_exp");
}

void test_attend(const Kernels& k, int32_t head_dim, int32_t first, int32_t last, check::Random& random) {
  const std::string name = std::string(k.name) + " attend " + std::to_string(head_dim) + " [" + std::to_string(first) + ", " + std::to_string(last) + "]";
  const int64_t stride = padded(head_dim), count = last + 1;
  auto rows = [&](int64_t n) {
    std::vector<float> values(static_cast<size_t>(n * stride), 0.0f);
    for (int64_t r = 0; r < n; r++)
      for (int32_t i = 0; i < head_dim; i++) values[static_cast<size_t>(r * stride + i)] = 2 * random.uniform();
    return values;
  };
  const std::vector<float> query = rows(1), keys = rows(count), values = rows(count);
  std::vector<float> scores(static_cast<size_t>(padded(count))), out(static_cast<size_t>(head_dim) + 1, 77.0f);
  const float scale = 1 / std::sqrt(static_cast<float>(head_dim));
  k.attend({query.data(), keys.data(), values.data(), stride, first, last, scale, scores.data(), out.data(), head_dim});

  std::vector<double> weight(static_cast<size_t>(count), 0.0);
  double highest = -1e300, total = 0;
  for (int32_t p = first; p <= last; p++) {
    double dot = 0;
    for (int32_t i = 0; i < head_dim; i++) dot += static_cast<double>(query[static_cast<size_t>(i)]) * keys[static_cast<size_t>(p * stride + i)];
    weight[static_cast<size_t>(p)] = dot / std::sqrt(static_cast<double>(head_dim));
    highest = std::max(highest, weight[static_cast<size_t>(p)]);
  }
  for (int32_t p = first; p <= last; p++) total += weight[static_cast<size_t>(p)] = std::exp(weight[static_cast<size_t>(p)] - highest);
  for (int32_t i = 0; i < head_dim; i++) {
    double expected = 0;
    for (int32_t p = first; p <= last; p++) expected += weight[static_cast<size_t>(p)] / total * values[static_cast<size_t>(p * stride + i)];
    check::near(out[static_cast<size_t>(i)], expected, 5e-6, name);
  }
  check::that(out[static_cast<size_t>(head_dim)] == 77.0f, name + " wrote past its end");
}

// Fused instruction sets promise the same bits.
void test_same_bits(const Kernels& a, const Kernels& b, check::Random& random) {
  for (int d = 0; d < CQIL_DTYPE_COUNT; d++) {
    const auto dtype = static_cast<cqil_dtype>(d);
    const int64_t n_rows = 19, cols = dtype_info(dtype).block_weights == 1 ? 333 : 768, bytes = row_bytes(dtype, cols);
    std::vector<uint8_t> rows(static_cast<size_t>(n_rows * bytes));
    fill_random(rows.data(), dtype, n_rows, cols, random.next());
    const std::vector<float> x = pad(random.vector(static_cast<size_t>(cols)));
    std::vector<float> ya(static_cast<size_t>(n_rows)), yb(ya);
    a.matvec[dtype](rows.data(), bytes, n_rows, cols, x.data(), ya.data());
    b.matvec[dtype](rows.data(), bytes, n_rows, cols, x.data(), yb.data());
    check::that(check::same_bits(ya, yb), std::string(a.name) + " and " + b.name + " differ in " + dtype_info(dtype).name);
  }
  for (size_t n : {5u, 16u, 333u}) {
    const std::vector<float> x = random.vector(n, 9), w = random.vector(n);
    std::vector<float> ga(x), gb(x), na(n), nb(n);
    a.silu_mul(ga.data(), w.data(), static_cast<int64_t>(n));
    b.silu_mul(gb.data(), w.data(), static_cast<int64_t>(n));
    a.rms_norm(x.data(), w.data(), static_cast<int64_t>(n), 1e-5f, na.data());
    b.rms_norm(x.data(), w.data(), static_cast<int64_t>(n), 1e-5f, nb.data());
    check::that(check::same_bits(ga, gb) && check::same_bits(na, nb), "elementwise kernels differ in bits");
    check::that(a.log_sum_exp(x.data(), static_cast<int64_t>(n)) == b.log_sum_exp(x.data(), static_cast<int64_t>(n)), "log_sum_exp differs in bits");
  }
}

}  // namespace

int main() {
  check::Random random(20240406);
  const std::vector<const Kernels*> list = supported();
  for (const Kernels* k : list) {
    for (int d = 0; d < CQIL_DTYPE_COUNT; d++) {
      const auto dtype = static_cast<cqil_dtype>(d);
      const int64_t block = dtype_info(dtype).block_weights;
      for (int64_t n_rows : {1, 3, 8, 31})
        for (int64_t cols : block == 1 ? std::vector<int64_t>{1, 15, 16, 17, 100, 576, 1030} : std::vector<int64_t>{block, 3 * block, 7 * block})
          test_products(*k, dtype, n_rows, cols, random);
    }
    for (int64_t n : {1, 7, 16, 31, 64, 1000}) test_elementwise(*k, n, random);
    for (int32_t head_dim : {2, 8, 16, 40, 64, 80, 128})
      for (int32_t last : {0, 3, 17, 200}) {
        test_attend(*k, head_dim, 0, last, random);
        test_attend(*k, head_dim, last / 2, last, random);
      }
  }
  for (const Kernels* a : list)
    for (const Kernels* b : list)
      if (a != b && std::strcmp(a->name, "plain") != 0 && std::strcmp(b->name, "plain") != 0) test_same_bits(*a, *b, random);
  return check::report("kernels");
}
