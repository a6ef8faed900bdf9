// Nibbles to weights by arithmetic, for the instruction sets without a table lookup of sixteen floats. Included by
// their headers, whose operations it uses.
#pragma once

namespace cqil {
namespace CQIL_ISA {

// The sixteen values a nibble stands for: q * scale + offset.
struct NibbleMap {
  F32x16 scale, offset;
};
inline NibbleMap nibble_map(float scale, float offset) { return {broadcast(scale), broadcast(offset)}; }
inline NibbleMap centered_nibble_map(const F32x16& scale) { return {scale, mul(scale, broadcast(-8.0f))}; }
inline F32x16 map_low(const NibbleMap& map, NibblePairs bytes) {
  return fma(low_nibbles(bytes), map.scale, map.offset);
}
inline F32x16 map_high(const NibbleMap& map, NibblePairs bytes) {
  return fma(high_nibbles(bytes), map.scale, map.offset);
}

}  // namespace CQIL_ISA
}  // namespace cqil
