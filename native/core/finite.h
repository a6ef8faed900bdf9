// Whether numbers are numbers.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace cqil {

// The first of n values that is NaN or infinite; n where there is none.
inline size_t first_not_finite(const float* values, size_t n) {
  constexpr uint32_t kExponent = 0x7f800000u;
  constexpr size_t kBlock = 1024;  // looked at as a whole, which compilers do with vectors
  auto exponent_is_full = [](float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return (bits & kExponent) == kExponent;
  };
  for (size_t first = 0; first < n; first += kBlock) {
    const size_t end = n - first < kBlock ? n : first + kBlock;
    uint32_t any = 0;
    for (size_t i = first; i < end; i++) any |= exponent_is_full(values[i]);
    if (!any) continue;
    for (size_t i = first; i < end; i++)
      if (exponent_is_full(values[i])) return i;
  }
  return n;
}

}  // namespace cqil
