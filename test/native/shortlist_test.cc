// The highest logits of a row: ties, infinities, what is not a number, and rows shorter than the list.
#include "cpu/shortlist.h"

#include <limits>

#include "shortlist.h"

namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

void test_rows() {
  check::Random random(11);
  for (int round = 0; round < 500; round++) {
    const int vocab = 1 + random.below(round % 2 ? 90 : 5000);
    std::vector<float> logits = random.vector(static_cast<size_t>(vocab), 9.0f);
    auto somewhere = [&]() -> float& { return logits[static_cast<size_t>(random.below(vocab))]; };
    for (int i = 0; i < vocab / 3; i++) somewhere() = somewhere();
    if (round % 3 == 0) std::sort(logits.begin(), logits.end());
    if (vocab > 4) logits[static_cast<size_t>(1 + random.below(vocab - 1))] = -kInfinity;
    cqil_shortlist list = {};
    const int32_t count = 1 + random.below(CQIL_MAX_SHORTLIST);
    list.count = count;
    CHECK(cqil::list_highest(logits.data(), vocab, list), "every logit is a number");
    double sum = 0;
    for (float v : logits) sum += std::exp(static_cast<double>(v));
    list.log_sum_exp = std::log(sum);
    check::expect_shortlist(list, logits, count, std::to_string(count) + " of " + std::to_string(vocab));

    somewhere() = round % 2 ? std::nanf("") : kInfinity;
    list.count = count;
    CHECK(!cqil::list_highest(logits.data(), vocab, list), "a logit that is no number is told of");
  }
}

}  // namespace

int main() {
  test_rows();
  return check::report("shortlist");
}
