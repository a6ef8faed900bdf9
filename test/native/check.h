// The little a native test needs: checks that count, random numbers, and a last line that says how it went.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "core/error.h"

namespace check {

inline int passed = 0, failed = 0;

inline void that(bool ok, const std::string& what) {
  (ok ? passed : failed)++;
  if (!ok) std::printf("FAILED: %s\n", what.c_str());
}

// |found - expected| <= tolerance, and neither is NaN.
inline void near(double found, double expected, double tolerance, const std::string& what) {
  that(std::fabs(found - expected) <= tolerance,
       what + ": found " + std::to_string(found) + ", expected " + std::to_string(expected) + " within " + std::to_string(tolerance));
}

template <class Vector>
bool same_bits(const Vector& a, const Vector& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(a[0])) == 0;
}

// body must throw cqil::Error with this code.
inline void throws(const char* code, const std::function<void()>& body, const std::string& what) {
  try {
    body();
    that(false, what + ": nothing was thrown");
  } catch (const cqil::Error& error) {
    that(std::strcmp(error.code(), code) == 0, what + ": " + error.code() + " instead of " + code);
  }
}

// xorshift64*: Vigna, "An experimental exploration of Marsaglia's xorshift generators, scrambled", 2016.
struct Random {
  uint64_t state;
  explicit Random(uint64_t seed) : state(seed * 0x9e3779b97f4a7c15u + 1) {}
  uint64_t next() {
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return state * 0x2545f4914f6cdd1du;
  }
  // In [-1, 1).
  float uniform() { return static_cast<float>(static_cast<int32_t>(next() >> 32)) * 4.656612873e-10f; }
  int below(int n) { return static_cast<int>(next() >> 33) % n; }
  std::vector<float> vector(size_t n, float range = 1.0f) {
    std::vector<float> values(n);
    for (float& value : values) value = range * uniform();
    return values;
  }
};

inline int report(const char* name) {
  std::printf("%s: %d passed, %d failed\n", name, passed, failed);
  return failed == 0 ? 0 : 1;
}

}  // namespace check
