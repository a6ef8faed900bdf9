// Products with activations rounded to int8, of every instruction set this machine runs: to the bit against their
// definition, written plainly here, and within rounding against float64.
#include "cpu/kernels/int8_kernels.h"

#include <algorithm>
#include <limits>

#include "aligned_row.h"
#include "check.h"
#include "core/half.h"
#include "core/random_weights.h"
#include "cpu/kernels/kernels.h"
#include "dequantize.h"

using namespace cqil;
using check::Row;

namespace {

constexpr cqil_dtype kDtypes[] = {CQIL_Q8_0, CQIL_Q4_0, CQIL_Q4_K, CQIL_Q6_K};

// The definition of rounding, in int8_kernels.h's words.
struct Rounded {
  std::vector<int> q;
  std::vector<float> d;
  explicit Rounded(const std::vector<float>& x) {
    for (size_t b = 0; b < x.size(); b += 32) {
      float highest = 0;
      for (size_t i = 0; i < 32; i++) highest = std::max(highest, std::fabs(x[b + i]));
      const bool small = highest < 1e-30f;
      d.push_back(small ? 0 : highest / 127.0f);
      for (size_t i = 0; i < 32; i++)
        q.push_back(small ? 0 : static_cast<int>(std::nearbyint(x[b + i] * (127.0f / highest))));
    }
  }
};

void test_round(const RoundedKernels& k, check::Random& random) {
  const std::string name = std::string(k.name) + " round";
  auto rounds = [&](const std::vector<float>& x, const char* what) {
    const int64_t n = static_cast<int64_t>(x.size());
    Row row(int8_row_bytes(n));
    k.round(x.data(), n, row.data);
    CHECK(!row.overrun(), name + " wrote past its end: " + what);
    const Int8Row found = int8_row(row.data, n);
    const Rounded expected(x);
    bool same = true;
    for (size_t i = 0; i < x.size(); i++) same = same && found.q[i] == expected.q[i];
    for (size_t b = 0; b < x.size() / 32; b++) {
      int sums[2] = {};
      for (size_t i = 0; i < 32; i++) sums[i / 16] += expected.q[32 * b + i];
      same = same && found.scale[b] == expected.d[b] && found.less[b] == -(sums[0] + sums[1]);
      same = same && found.less_by_16[2 * b] == -sums[0] && found.less_by_16[2 * b + 1] == -sums[1];
    }
    CHECK(same, name + ": " + what);
  };
  for (size_t n : {32u, 96u, 576u, 1056u}) rounds(random.vector(n, 5), "uniform");
  rounds(std::vector<float>(64, 0.0f), "zeros");
  std::vector<float> ties(32, 0.0f);
  ties[0] = 127;
  for (size_t i = 1; i < 32; i++) ties[i] = static_cast<float>(i) - 16.5f;
  rounds(ties, "ties go to even");
  std::vector<float> every;
  for (uint32_t exponent = 0; exponent < 255; exponent++)
    for (int i = 0; i < 32; i++)
      every.push_back(float_from_bits(exponent << 23 | static_cast<uint32_t>(random.next() >> 41) |
                                      static_cast<uint32_t>(i % 2) << 31));
  rounds(every, "every exponent");
  for (float odd : {std::numeric_limits<float>::infinity(), -std::numeric_limits<float>::infinity(),
                    std::numeric_limits<float>::quiet_NaN()}) {
    std::vector<float> x = random.vector(128);
    x[77] = odd;
    Row row(int8_row_bytes(128));
    k.round(x.data(), 128, row.data);
    const float* scale = int8_row(row.data, 128).scale;
    CHECK(std::all_of(scale, scale + 4, [](float d) { return std::isnan(d); }),
          name + ": what is not finite is not hidden");
  }
}

// One weight as its format has it: scale * q - minimum.
struct Packed {
  int q;
  float scale, minimum;
};

Packed unpacked(const uint8_t* row, cqil_dtype dtype, int64_t i) {
  const DtypeInfo& info = dtype_info(dtype);
  const uint8_t* b = row + i / info.block_weights * info.block_bytes;
  const int k = static_cast<int>(i % info.block_weights);
  const float d = static_cast<float>(check::f16(b));
  if (dtype == CQIL_Q8_0) return {static_cast<int8_t>(b[2 + k]), d, 0};
  if (dtype == CQIL_Q4_0) return {(k < 16 ? b[2 + k] & 15 : b[2 + k - 16] >> 4) - 8, d, 0};
  if (dtype == CQIL_Q4_K) {
    int scale = 0, minimum = 0;
    check::k_scale(b + 4, k / 32, scale, minimum);
    const uint8_t q = b[16 + k / 64 * 32 + k % 32];
    return {k % 64 < 32 ? q & 15 : q >> 4, d * static_cast<float>(scale),
            static_cast<float>(check::f16(b + 2)) * static_cast<float>(minimum)};
  }
  const int half = k / 128, quarter = k % 128 / 32, l = k % 32;
  const uint8_t low = b[64 * half + 32 * (quarter % 2) + l];
  const int q = (quarter < 2 ? low & 15 : low >> 4) | (b[128 + 32 * half + l] >> (2 * quarter) & 3) << 4;
  return {q - 32, static_cast<float>(check::f16(b + 208)) * static_cast<float>(static_cast<int8_t>(b[192 + k / 16])),
          0};
}

// The definition of a product: one chain of float32 additions over groups of exact integer sums.
float defined_product(const uint8_t* row, cqil_dtype dtype, const Rounded& x, bool fused) {
  auto add = [fused](float a, float b, float sum) { return fused ? std::fma(a, b, sum) : a * b + sum; };
  const size_t group = dtype == CQIL_Q6_K ? 16 : 32;
  float sum = 0;
  for (size_t g = 0; g < x.q.size(); g += group) {
    int inner = 0, less = 0;
    for (size_t i = g; i < g + group; i++) {
      inner += unpacked(row, dtype, static_cast<int64_t>(i)).q * x.q[i];
      less -= x.q[i];
    }
    const Packed w = unpacked(row, dtype, static_cast<int64_t>(g));
    const float d = x.d[g / 32];
    sum = add(static_cast<float>(inner) * d, w.scale, sum);
    if (dtype == CQIL_Q4_K) sum = add(static_cast<float>(less) * d, w.minimum, sum);
  }
  return sum;
}

// All bytes of the weights at random, or all at an end of their range, where narrow sums would overflow.
enum class Fill { kRandom, kLowest, kHighest };

void test_products(const RoundedKernels& k, bool fused, cqil_dtype dtype, int64_t n_rows, int64_t cols,
                   int64_t n_tokens, Fill fill, check::Random& random) {
  const std::string name = std::string(k.name) + " " + dtype_info(dtype).name + " " + std::to_string(n_rows) + "x" +
                           std::to_string(cols) + ", " + std::to_string(n_tokens) + " tokens";
  const int64_t bytes = row_bytes(dtype, cols);
  // Nothing may be read behind the last row.
  std::vector<uint8_t> rows(static_cast<size_t>(n_rows * bytes));
  fill_random(rows.data(), dtype, n_rows, cols, random.next());
  if (fill != Fill::kRandom) {
    // Scales are 16-bit floats at the ends of blocks: those stay as they are.
    const DtypeInfo& info = dtype_info(dtype);
    const size_t first = dtype == CQIL_Q6_K   ? 0
                         : dtype == CQIL_Q4_K ? 4
                                              : 2,
                 end = dtype == CQIL_Q6_K ? 208 : static_cast<size_t>(info.block_bytes);
    const uint8_t lowest = dtype == CQIL_Q8_0 ? 0x80 : 0, highest = dtype == CQIL_Q8_0 ? 0x7f : 0xff;
    for (size_t b = 0; b < rows.size(); b += static_cast<size_t>(info.block_bytes))
      std::fill(rows.begin() + static_cast<long>(b + first), rows.begin() + static_cast<long>(b + end),
                fill == Fill::kLowest ? lowest : highest);
  }
  const int64_t stride = int8_row_bytes(cols) + 64;
  const int64_t whole_rows = (n_rows + kInt8Rows - 1) / kInt8Rows * kInt8Rows;
  Row x(n_tokens * stride), interleaved(whole_rows * bytes), panel(whole_rows * (cols + cols / 16 * 4));
  std::vector<std::vector<float>> tokens;
  for (int64_t t = 0; t < n_tokens; t++) {
    tokens.push_back(random.vector(static_cast<size_t>(cols)));
    if (fill != Fill::kRandom)
      for (float& v : tokens.back()) v = t % 2 ? -1.0f : 1.0f;
    k.round(tokens.back().data(), cols, x.data + t * stride);
  }

  const size_t y_stride = static_cast<size_t>(n_rows) + 3;
  std::vector<float> tiled(static_cast<size_t>(n_tokens) * y_stride, 77.0f),
      single(static_cast<size_t>(n_rows) + 1, 77.0f);
  k.interleave[dtype](rows.data(), bytes, n_rows, cols, interleaved.data);
  CHECK(!interleaved.overrun(), name + ": interleave wrote past its end");
  k.unpack[dtype](interleaved.data, n_rows, cols, panel.data);
  CHECK(!panel.overrun(), name + ": unpack wrote past its end");
  k.matmul[dtype](panel.data, n_rows, {x.data, stride, n_tokens}, cols, {tiled.data(), static_cast<int64_t>(y_stride)});

  const std::vector<double> w = check::dequantize(rows.data(), dtype, n_rows * cols);
  bool defined = true, together = true, inside = true;
  for (int64_t t = 0; t < n_tokens; t++) {
    const Rounded rounded(tokens[static_cast<size_t>(t)]);
    k.matvec[dtype](interleaved.data, n_rows, cols, x.data + t * stride, single.data());
    const float* tile = tiled.data() + static_cast<size_t>(t) * y_stride;
    together = together && std::memcmp(single.data(), tile, static_cast<size_t>(n_rows) * sizeof(float)) == 0;
    inside = inside && single.back() == 77.0f && tile[n_rows] == 77.0f && tile[n_rows + 2] == 77.0f;
    for (int64_t r = 0; r < n_rows; r++) {
      const float found = single[static_cast<size_t>(r)];
      defined = defined && found == defined_product(rows.data() + r * bytes, dtype, rounded, fused);
      double sum = 0, magnitude = 0;
      for (int64_t c = 0; c < cols; c++) {
        const double weight = w[static_cast<size_t>(r * cols + c)],
                     xr = static_cast<double>(rounded.q[static_cast<size_t>(c)]) *
                          rounded.d[static_cast<size_t>(c / 32)];
        sum += weight * xr;
        magnitude += std::fabs(weight * xr);
      }
      // A minimum is taken off a sum that may be larger than what remains.
      check::near(
          found, sum,
          (magnitude + std::fabs(sum)) * (static_cast<double>(cols) / 16 + 8) * 6e-8 * (dtype == CQIL_Q4_K ? 4 : 1),
          name);
    }
  }
  CHECK(defined, name + ": other bits than the definition's");
  CHECK(together, name + ": matmul and matvec differ");
  CHECK(inside, name + ": wrote past the rows");
}

}  // namespace

int main() {
  check::Random random(20240407);
  for (int i = 0; i < isa_list().count; i++) {
    const Isa& isa = isa_list().items[i];
    if (!isa.supported) {
      std::printf("skipped: %s: this machine does not run it\n", isa.name);
      continue;
    }
    const RoundedKernels& k = *isa.int8;
    const bool fused = std::strcmp(k.name, "plain") != 0;
    test_round(k, random);
    for (cqil_dtype dtype : kDtypes) {
      const int64_t block = dtype_info(dtype).block_weights;
      for (int64_t n_rows : {1, 15, 16, 17, 32, 47, 131})
        for (int64_t cols : {block, 3 * block, 768 + block})
          for (int64_t n_tokens : {1, 2, 5, 13})
            test_products(k, fused, dtype, n_rows, cols, n_tokens, Fill::kRandom, random);
      test_products(k, fused, dtype, 1003, 768 + 256, 1, Fill::kRandom, random);  // long enough for several streams of
                                                                                  // memory
      for (Fill fill : {Fill::kLowest, Fill::kHighest}) test_products(k, fused, dtype, 17, 2 * block, 3, fill, random);
    }
    // A value that is not finite makes every product with it not a number, as in float32.
    std::vector<float> x = random.vector(256), y(3, 0.0f);
    x[200] = std::numeric_limits<float>::quiet_NaN();
    Row row(int8_row_bytes(256));
    k.round(x.data(), 256, row.data);
    for (cqil_dtype dtype : kDtypes) {
      std::vector<uint8_t> rows(static_cast<size_t>(3 * row_bytes(dtype, 256)));
      fill_random(rows.data(), dtype, 3, 256, random.next());
      Row interleaved(kInt8Rows * row_bytes(dtype, 256));
      k.interleave[dtype](rows.data(), row_bytes(dtype, 256), 3, 256, interleaved.data);
      k.matvec[dtype](interleaved.data, 3, 256, row.data, y.data());
      CHECK(std::isnan(y[0]) && std::isnan(y[2]), std::string(k.name) + " NaN");
    }
  }
  return check::report("int8");
}
