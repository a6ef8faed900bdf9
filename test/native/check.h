// The little a native test needs: checks that count and tell what they found and where, random numbers, and a last line
// that says how it went.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <string>
#include <type_traits>
#include <vector>

#include "core/error.h"

// CHECK(found == expected, "what is checked"): a failure prints the condition, both sides of it, the file and the line.
#define CHECK(condition, what) \
  ::check::that(::check::Condition() << condition, what, __builtin_FILE(), __builtin_LINE(), #condition)
#if defined(__GNUC__)
// << stands before every condition so that it meets the left side of a comparison.
#pragma GCC diagnostic ignored "-Wparentheses"
#endif

namespace check {

inline int passed = 0, failed = 0;

template <class T, class = void>
struct is_list : std::false_type {};
template <class T>
struct is_list<T, std::void_t<decltype(std::declval<const T&>().size()), decltype(std::declval<const T&>()[0])>>
    : std::true_type {};

// A value as a failure shows it: of a list its length and its beginning.
template <class T>
std::string describe(const T& value) {
  if constexpr (std::is_same_v<T, bool>) {
    return value ? "true" : "false";
  } else if constexpr (std::is_enum_v<T>) {
    return std::to_string(static_cast<long long>(value));
  } else if constexpr (std::is_floating_point_v<T>) {
    char text[32];
    std::snprintf(text, sizeof text, "%.9g", static_cast<double>(value));
    return text;
  } else if constexpr (std::is_integral_v<T>) {
    return std::to_string(value);
  } else if constexpr (std::is_convertible_v<const T&, std::string>) {
    return '"' + std::string(value) + '"';
  } else if constexpr (std::is_function_v<T> ||
                       (std::is_pointer_v<T> && std::is_function_v<std::remove_pointer_t<T>>)) {
    return "a function";
  } else if constexpr (std::is_pointer_v<T>) {
    char text[32];
    std::snprintf(text, sizeof text, "%p", static_cast<const void*>(value));
    return text;
  } else if constexpr (is_list<T>::value) {
    std::string text = "[" + std::to_string(value.size()) + "] {";
    for (size_t i = 0; i < value.size() && i < 8; i++) text += (i > 0 ? ", " : "") + describe(value[i]);
    return text + (value.size() > 8 ? ", ...}" : "}");
  } else if constexpr (std::is_constructible_v<bool, const T&>) {
    return describe(static_cast<bool>(value));
  } else {
    return "a value";
  }
}

// What came of a condition, and, where it does not hold, what was found.
struct Outcome {
  bool holds;
  std::string found;
  Outcome(bool it_holds, std::string what_was_found = "") : holds(it_holds), found(std::move(what_was_found)) {}
  explicit operator bool() const { return holds; }
};

// Whole numbers compare by value, whatever their signs and widths.
template <class A, class B>
bool equal(const A& a, const B& b) {
  if constexpr (std::is_integral_v<A> && std::is_integral_v<B> && !std::is_same_v<A, bool> &&
                !std::is_same_v<B, bool>) {
    return static_cast<std::common_type_t<A, B>>(a) == static_cast<std::common_type_t<A, B>>(b) &&
           (a < A(0)) == (b < B(0));
  } else {
    return a == b;
  }
}

// The left side of a condition, or all of it.
template <class L>
struct Side {
  const L& left;
  template <class R>
  Outcome told(bool holds, const char* sign, const R& right) const {
    return {holds, holds ? "" : describe(left) + sign + describe(right)};
  }
  template <class R>
  Outcome operator==(const R& right) const {
    return told(equal(left, right), " == ", right);
  }
  template <class R>
  Outcome operator!=(const R& right) const {
    return told(!equal(left, right), " != ", right);
  }
  template <class R>
  Outcome operator<(const R& right) const {
    return told(left < static_cast<L>(right), " < ", right);
  }
  template <class R>
  Outcome operator>(const R& right) const {
    return told(left > static_cast<L>(right), " > ", right);
  }
  template <class R>
  Outcome operator<=(const R& right) const {
    return told(left <= static_cast<L>(right), " <= ", right);
  }
  template <class R>
  Outcome operator>=(const R& right) const {
    return told(left >= static_cast<L>(right), " >= ", right);
  }
  explicit operator bool() const { return static_cast<bool>(left); }
  operator Outcome() const {
    if constexpr (std::is_same_v<L, Outcome>) return left;
    else return {static_cast<bool>(left), ""};
  }
};

struct Condition {
  template <class L>
  Side<L> operator<<(const L& left) const {
    return {left};
  }
};

inline void that(const Outcome& outcome, const std::string& what, const char* file = __builtin_FILE(),
                 int line = __builtin_LINE(), const char* condition = "") {
  (outcome.holds ? passed : failed)++;
  if (outcome.holds) return;
  std::printf("FAILED: %s\n    at %s:%d\n", what.c_str(), file, line);
  if (*condition) std::printf("    expected %s\n", condition);
  if (!outcome.found.empty()) std::printf("    found    %s\n", outcome.found.c_str());
}

// |found - expected| <= tolerance, and neither is NaN.
inline void near(double found, double expected, double tolerance, const std::string& what,
                 const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  const bool holds = std::fabs(found - expected) <= tolerance;
  that({holds, holds ? "" : describe(found) + ", expected " + describe(expected) + " within " + describe(tolerance)},
       what, file, line);
}

// Whether two lists have the same bits; where not, which element is the first that differs.
template <class Vector>
Outcome same_bits(const Vector& a, const Vector& b) {
  if (a.size() != b.size()) return {false, std::to_string(a.size()) + " values and " + std::to_string(b.size())};
  for (size_t i = 0; i < a.size(); i++) {
    if (std::memcmp(&a[i], &b[i], sizeof(a[i])) == 0) continue;
    return {false, "element " + std::to_string(i) + " of " + std::to_string(a.size()) + ": " + describe(a[i]) +
                       " and " + describe(b[i])};
  }
  return true;
}

// body must throw cqil::Error with this code.
inline void throws(const char* code, const std::function<void()>& body, const std::string& what,
                   const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
  try {
    body();
    that({false, "nothing was thrown, expected " + std::string(code)}, what, file, line);
  } catch (const cqil::Error& error) {
    const bool holds = std::strcmp(error.code(), code) == 0;
    that({holds, holds ? "" : std::string(error.code()) + " (" + error.what() + "), expected " + code}, what, file,
         line);
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
