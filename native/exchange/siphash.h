// SipHash-2-4 with a result of 128 bits: a keyed hash that nobody can compute without the key. It follows Aumasson and
// Bernstein, "SipHash: a fast short-input PRF", 2012, with the constants for 128 bits of their reference code.
#pragma once
#include <array>
#include <cstdint>
#include <cstring>

namespace cqil {

using Key = std::array<uint8_t, 16>;
using Hash = std::array<uint8_t, 16>;

// For processors that store the least byte first, as all that ranks run on do.
inline Hash siphash(const Key& key, const void* data, size_t bytes) {
  uint64_t k0, k1;
  std::memcpy(&k0, key.data(), 8);
  std::memcpy(&k1, key.data() + 8, 8);
  uint64_t v0 = 0x736f6d6570736575 ^ k0, v1 = 0x646f72616e646f6d ^ k1 ^ 0xee;
  uint64_t v2 = 0x6c7967656e657261 ^ k0, v3 = 0x7465646279746573 ^ k1;
  auto rotate = [](uint64_t x, int by) { return x << by | x >> (64 - by); };
  auto rounds = [&](int n) {
    for (; n > 0; n--) {
      v0 += v1, v1 = rotate(v1, 13) ^ v0, v0 = rotate(v0, 32);
      v2 += v3, v3 = rotate(v3, 16) ^ v2;
      v0 += v3, v3 = rotate(v3, 21) ^ v0;
      v2 += v1, v1 = rotate(v1, 17) ^ v2, v2 = rotate(v2, 32);
    }
  };
  const auto* at = static_cast<const uint8_t*>(data);
  for (size_t left = bytes; left >= 8; left -= 8, at += 8) {
    uint64_t word;
    std::memcpy(&word, at, 8);
    v3 ^= word, rounds(2), v0 ^= word;
  }
  uint64_t last = static_cast<uint64_t>(bytes) << 56;
  for (size_t i = 0; i < bytes % 8; i++) last |= static_cast<uint64_t>(at[i]) << (8 * i);
  v3 ^= last, rounds(2), v0 ^= last;
  v2 ^= 0xee, rounds(4);
  const uint64_t low = v0 ^ v1 ^ v2 ^ v3;
  v1 ^= 0xdd, rounds(4);
  const uint64_t high = v0 ^ v1 ^ v2 ^ v3;
  Hash hash;
  std::memcpy(hash.data(), &low, 8);
  std::memcpy(hash.data() + 8, &high, 8);
  return hash;
}

}  // namespace cqil
