// Every kernel of every instruction set this machine runs, against float64, and the fused ones against each other.
#include "cpu/kernels/kernels.h"

#include <algorithm>
#include <limits>

#include "check.h"
#include "core/half.h"
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

// A row of n products in float32 with 16 partial sums errs by at most about (n / 16 + 4) roundings of the summed
// magnitudes.
double dot_tolerance(double magnitude, int64_t n) { return magnitude * (static_cast<double>(n) / 16 + 8) * 6e-8; }

void test_products(const Kernels& k, cqil_dtype dtype, int64_t n_rows, int64_t cols, check::Random& random) {
  const std::string name =
      std::string(k.name) + " " + dtype_info(dtype).name + " " + std::to_string(n_rows) + "x" + std::to_string(cols);
  const int64_t bytes = row_bytes(dtype, cols);
  std::vector<uint8_t> rows(static_cast<size_t>(n_rows * bytes));
  fill_random(rows.data(), dtype, n_rows, cols, random.next());
  const std::vector<double> w = check::dequantize(rows.data(), dtype, n_rows * cols);
  constexpr int64_t kTokens = 53;  // whole blocks of every instruction set, whole tiles and a rest
  const int64_t stride = padded(cols);
  std::vector<float> x(static_cast<size_t>(kTokens * stride), 0.0f);
  for (int64_t t = 0; t < kTokens; t++)
    for (int64_t c = 0; c < cols; c++) x[static_cast<size_t>(t * stride + c)] = random.uniform();

  std::vector<float> unpacked(static_cast<size_t>(n_rows * stride), -1.0f);
  for (int64_t r = 0; r < n_rows; r++)
    k.unpack[dtype](rows.data() + r * bytes, bytes, 1, cols, unpacked.data() + r * stride);
  double worst = 0;
  for (int64_t r = 0; r < n_rows; r++)
    for (int64_t c = 0; c < stride; c++) {
      const double expected = c < cols ? w[static_cast<size_t>(r * cols + c)] : 0.0;
      const double d = std::fabs(unpacked[static_cast<size_t>(r * stride + c)] - expected);
      worst = std::max(worst, d / (std::fabs(expected) + 1e-2));
    }
  check::near(worst, 0, 1e-6, name + " unpack");

  std::vector<float> panel(unpacked.size()), tiled(static_cast<size_t>(kTokens * n_rows)),
      single(static_cast<size_t>(n_rows));
  k.unpack[dtype](rows.data(), bytes, n_rows, cols, panel.data());
  k.matmul(panel.data(), n_rows, {x.data(), stride, kTokens}, stride, {tiled.data(), n_rows});
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
  CHECK(bits, name + ": matmul and matvec differ");
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
  CHECK(out[count] == 77.0f, name + " rms_norm wrote past its end");

  std::vector<float> sum(x);
  k.add(sum.data(), weight.data(), n);
  bool exact = true;
  for (size_t i = 0; i < count; i++) exact = exact && sum[i] == x[i] + weight[i];
  CHECK(exact, name + " add");

  std::vector<float> gate = random.vector(count, 30);
  gate[0] = -200;
  const std::vector<float> before(gate);
  k.activate_mul[CQIL_SILU](gate.data(), weight.data(), n);
  for (size_t i = 0; i < count; i++) {
    const double g = before[i], expected = g / (1 + std::exp(-g)) * weight[i];
    check::near(gate[i], expected, std::fabs(expected) * 1e-6 + 1e-7, name + " silu_mul");
  }

  gate = before;
  k.activate_mul[CQIL_GELU_TANH](gate.data(), weight.data(), n);
  for (size_t i = 0; i < count; i++) {
    const double g = before[i], u = std::sqrt(2 / 3.14159265358979323846) * (g + 0.044715 * g * g * g);
    const double expected = g / 2 * (1 + std::tanh(u)) * weight[i];
    // Where tanh is near -1, its float64 has lost what is left of g.
    check::near(gate[i], expected, std::fabs(expected) * 1e-5 + std::fabs(g * weight[i]) * 1e-15 + 1e-6,
                name + " gelu_tanh_mul");
  }

  std::vector<float> capped(before);
  k.cap(capped.data(), n, 5);
  for (size_t i = 0; i < count; i++) check::near(capped[i], 5 * std::tanh(before[i] / 5.0), 2e-6, name + " cap");
  for (float bad : {INFINITY, -INFINITY, NAN}) {
    capped.assign(count, 1);
    capped.back() = bad;
    k.cap(capped.data(), n, 5);
    CHECK(std::isnan(capped.back()), name + " cap hides what is not finite");
  }

  double total = 0;
  for (float v : x) total += std::exp(static_cast<double>(v));
  check::near(k.log_sum_exp(x.data(), n), std::log(total), 2e-6, name + " log_sum_exp");
}

constexpr cqil_dtype kKvDtypes[] = {CQIL_F32, CQIL_F16, CQIL_Q8_0};

// Values per row of a cache: whole vectors and whole blocks.
int64_t kv_stride(cqil_dtype dtype, int64_t n) {
  const int64_t unit = std::max<int64_t>(kPad, dtype_info(dtype).block_weights);
  return (n + unit - 1) / unit * unit;
}

// What store_kv must write of values that are finite, in f16 perhaps infinite: see one_nan.
std::vector<uint8_t> stored(cqil_dtype dtype, const std::vector<float>& x) {
  std::vector<uint8_t> row(static_cast<size_t>(row_bytes(dtype, static_cast<int64_t>(x.size()))));
  auto put_half = [&](size_t at, float value) {
    const uint16_t half = f16_from_float(value);
    std::memcpy(&row[at], &half, sizeof half);
  };
  if (dtype == CQIL_F32) std::memcpy(row.data(), x.data(), row.size());
  if (dtype == CQIL_F16)
    for (size_t i = 0; i < x.size(); i++) put_half(2 * i, x[i]);
  if (dtype == CQIL_Q8_0)
    for (size_t block = 0; block < x.size() / 32; block++) {
      float highest = 0;
      for (size_t i = 0; i < 32; i++) highest = std::max(highest, std::fabs(x[32 * block + i]));
      const float d = highest / 127;
      put_half(34 * block, d);
      for (size_t i = 0; i < 32; i++) {
        const float q = d > 0 ? std::nearbyint(x[32 * block + i] / d) : 0;
        row[34 * block + 2 + i] = static_cast<uint8_t>(static_cast<int8_t>(std::min(std::max(q, -127.0f), 127.0f)));
      }
    }
  return row;
}

// A row with one kind of NaN: what is infinite is kept as some NaN, and the values of a block whose d is NaN are of no
// matter.
std::vector<uint8_t> one_nan(cqil_dtype dtype, std::vector<uint8_t> row) {
  const size_t step = dtype == CQIL_Q8_0 ? 34 : 2;
  for (size_t at = 0; dtype != CQIL_F32 && at + step <= row.size(); at += step) {
    uint16_t half;
    std::memcpy(&half, &row[at], sizeof half);
    if ((half & 0x7c00u) != 0x7c00u) continue;
    std::memset(&row[at], 0xff, step);
  }
  return row;
}

void test_store_kv(const Kernels& k, cqil_dtype dtype, check::Random& random) {
  const std::string name = std::string(k.name) + " store_kv " + dtype_info(dtype).name;
  auto stores = [&](std::vector<float> x, const char* what) {
    x.resize(static_cast<size_t>(kv_stride(dtype, static_cast<int64_t>(x.size()))), 0.0f);
    const std::vector<uint8_t> expected = stored(dtype, x);
    std::vector<uint8_t> found(expected.size() + 1, 0x5a);
    k.store_kv[dtype](x.data(), static_cast<int64_t>(x.size()), found.data());
    CHECK(found.back() == 0x5a, name + " wrote past its end: " + what);
    found.pop_back();
    CHECK(check::same_bits(one_nan(dtype, found), one_nan(dtype, expected)), name + ": " + what);
  };
  for (size_t n : {1u, 16u, 18u, 40u, 64u, 96u}) stores(random.vector(n, 3), "uniform");
  stores(std::vector<float>(64, 0.0f), "zeros");
  stores({127, 0.5f, 1.5f, 2.5f, -0.5f, -1.5f, -126.5f, 126.5f}, "ties");
  stores({0x1p-149f, -0x1p-149f, 0x1.8p-142f, 0x1p-130f, 0}, "too small for a half");
  stores({6e-8f, 3e-8f, -2e-8f, 6.1e-5f, -5.9e-5f, 65504, 65519, 65520, -70000, 1e30f},
         "the ends of the halves' range");
  std::vector<float> every;  // scale of floats: every exponent, bits at random
  for (uint32_t exponent = 0; exponent < 255; exponent++)
    every.push_back(
        float_from_bits(exponent << 23 | static_cast<uint32_t>(random.next() >> 41) | (exponent % 2) << 31));
  stores(every, "every exponent");
  // What is not finite is found to be NaN, and so is all of a block that shares its scale.
  for (float odd : {std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity(),
                    std::numeric_limits<float>::quiet_NaN()})
    for (size_t at : {0u, 3u, 17u, 31u}) {
      std::vector<float> x(64, 1.0f);
      x[at] = odd;
      std::vector<uint8_t> row(256);
      k.store_kv[dtype](x.data(), 64, row.data());
      const std::vector<double> found = check::dequantize(row.data(), dtype, 64);
      for (size_t i = 0; i < 64; i++)
        CHECK(std::isnan(found[i]) == (i == at || (dtype == CQIL_Q8_0 && i < 32)),
              name + ": " + std::to_string(odd) + " at " + std::to_string(at));
    }
}

void test_attend(const Kernels& k, cqil_dtype dtype, int32_t head_dim, int32_t window, int32_t last, int32_t step,
                 int32_t n_queries, check::Random& random) {
  const std::string name = std::string(k.name) + " attend " + dtype_info(dtype).name + " " + std::to_string(head_dim) +
                           " window " + std::to_string(window) + " last " + std::to_string(last) + " x" +
                           std::to_string(n_queries);
  const int64_t stride = kv_stride(dtype, head_dim), count = last + n_queries;
  auto rows = [&](int64_t n) {
    std::vector<float> values(static_cast<size_t>(n * stride), 0.0f);
    for (int64_t r = 0; r < n; r++)
      for (int32_t i = 0; i < head_dim; i++) values[static_cast<size_t>(r * stride + i)] = 2 * random.uniform();
    return values;
  };
  // What the cache holds, and as float64 what that stands for.
  auto cache = [&](std::vector<double>& meant) {
    const std::vector<uint8_t> bytes = stored(dtype, rows(count));
    meant = check::dequantize(bytes.data(), dtype, count * stride);
    return bytes;
  };
  const std::vector<float> queries = rows(n_queries);
  std::vector<double> keys, values;
  const std::vector<uint8_t> key_rows = cache(keys), value_rows = cache(values);
  const int64_t out_stride = head_dim + 1;
  std::vector<float> scores(static_cast<size_t>(n_queries * padded(count))),
      outs(static_cast<size_t>(n_queries * out_stride), 77.0f);
  const float scale = 1 / std::sqrt(static_cast<float>(head_dim)), cap = head_dim == 40 ? 0.3f : 0;
  k.attend[dtype]({queries.data(), stride, n_queries, key_rows.data(), value_rows.data(), stride, last, step, window,
                   scale, cap, scores.data(), padded(count), outs.data(), out_stride, head_dim});

  for (int32_t t = 0; t < n_queries; t++) {
    const float* query = queries.data() + t * stride;
    const float* out = outs.data() + t * out_stride;
    const int32_t own = last + step * t, first = window ? std::max(0, own - window + 1) : 0;
    std::vector<double> weight(static_cast<size_t>(count), 0.0);
    double highest = -1e300, total = 0;
    for (int32_t p = first; p <= own; p++) {
      double dot = 0;
      for (int32_t i = 0; i < head_dim; i++) dot += query[i] * keys[static_cast<size_t>(p * stride + i)];
      dot /= std::sqrt(static_cast<double>(head_dim));
      weight[static_cast<size_t>(p)] = cap > 0 ? cap * std::tanh(dot / cap) : dot;
      highest = std::max(highest, weight[static_cast<size_t>(p)]);
    }
    for (int32_t p = first; p <= own; p++)
      total += weight[static_cast<size_t>(p)] = std::exp(weight[static_cast<size_t>(p)] - highest);
    for (int32_t i = 0; i < head_dim; i++) {
      double expected = 0;
      for (int32_t p = first; p <= own; p++)
        expected += weight[static_cast<size_t>(p)] / total * values[static_cast<size_t>(p * stride + i)];
      check::near(out[i], expected, 5e-6, name);
    }
    CHECK(out[head_dim] == 77.0f, name + " wrote past its end");
    // Alone, a query gives the same bits.
    std::vector<float> alone(static_cast<size_t>(head_dim));
    k.attend[dtype]({query, stride, 1, key_rows.data(), value_rows.data(), stride, own, 0, window, scale, cap,
                     scores.data(), padded(count), alone.data(), out_stride, head_dim});
    CHECK(std::memcmp(alone.data(), out, alone.size() * sizeof(float)) == 0, name + ": together and alone differ");
  }
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
    CHECK(check::same_bits(ya, yb), std::string(a.name) + " and " + b.name + " differ in " + dtype_info(dtype).name);
  }
  for (cqil_dtype dtype : kKvDtypes) {
    const int32_t head_dim = 40, last = 100;
    const int64_t stride = kv_stride(dtype, head_dim);
    std::vector<float> query = random.vector(static_cast<size_t>(head_dim));
    query.resize(static_cast<size_t>(stride), 0.0f);
    const std::vector<uint8_t> keys = stored(dtype, random.vector(static_cast<size_t>((last + 1) * stride)));
    const std::vector<uint8_t> values = stored(dtype, random.vector(static_cast<size_t>((last + 1) * stride)));
    std::vector<float> scores(static_cast<size_t>(padded(last + 1))), oa(static_cast<size_t>(head_dim)), ob(oa);
    a.attend[dtype]({query.data(), stride, 1, keys.data(), values.data(), stride, last, 0, 0, 0.2f, 1.5f, scores.data(),
                     padded(last + 1), oa.data(), head_dim, head_dim});
    b.attend[dtype]({query.data(), stride, 1, keys.data(), values.data(), stride, last, 0, 0, 0.2f, 1.5f, scores.data(),
                     padded(last + 1), ob.data(), head_dim, head_dim});
    CHECK(check::same_bits(oa, ob), std::string("attend differs in bits with a cache of ") + dtype_info(dtype).name);
  }
  for (size_t n : {5u, 16u, 333u}) {
    const std::vector<float> x = random.vector(n, 9), w = random.vector(n);
    std::vector<float> na(n), nb(n);
    for (int activation = 0; activation < CQIL_ACTIVATION_COUNT; activation++) {
      std::vector<float> ga(x), gb(x);
      a.activate_mul[activation](ga.data(), w.data(), static_cast<int64_t>(n));
      b.activate_mul[activation](gb.data(), w.data(), static_cast<int64_t>(n));
      CHECK(check::same_bits(ga, gb), "activations differ in bits");
    }
    a.rms_norm(x.data(), w.data(), static_cast<int64_t>(n), 1e-5f, na.data());
    b.rms_norm(x.data(), w.data(), static_cast<int64_t>(n), 1e-5f, nb.data());
    CHECK(check::same_bits(na, nb), "elementwise kernels differ in bits");
    CHECK(a.log_sum_exp(x.data(), static_cast<int64_t>(n)) == b.log_sum_exp(x.data(), static_cast<int64_t>(n)),
          "log_sum_exp differs in bits");
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
        for (int64_t cols : block == 1 ? std::vector<int64_t>{1, 15, 16, 17, 100, 576, 1030}
                                       : std::vector<int64_t>{block, 3 * block, 7 * block})
          test_products(*k, dtype, n_rows, cols, random);
    }
    for (int64_t n : {1, 7, 16, 31, 64, 1000}) test_elementwise(*k, n, random);
    for (cqil_dtype dtype : kKvDtypes) {
      test_store_kv(*k, dtype, random);
      for (int32_t head_dim : {2, 8, 16, 40, 64, 80, 128})
        for (int32_t last : {0, 3, 17, 200})
          for (int32_t window : {0, 1, 2, 12})
            for (int32_t n_queries = 1; n_queries <= kAttendQueries; n_queries++)
              for (int32_t step : {0, 1}) test_attend(*k, dtype, head_dim, window, last, step, n_queries, random);
    }
  }
  for (const Kernels* a : list)
    for (const Kernels* b : list)
      if (a != b && std::strcmp(a->name, "plain") != 0 && std::strcmp(b->name, "plain") != 0)
        test_same_bits(*a, *b, random);
  return check::report("kernels");
}
