// Sixteen bytes of two nibbles, for the instruction sets that take nibbles apart before they widen them. Included by
// their headers.
#pragma once

namespace cqil {
namespace CQIL_ISA {

struct NibblePairs {
  U8x16 bytes;
};
inline NibblePairs load_nibble_pairs(const uint8_t* from) { return {load_bytes(from)}; }
inline F32x16 low_nibbles(const NibblePairs& a) { return from_u8(low_nibbles(a.bytes)); }
inline F32x16 high_nibbles(const NibblePairs& a) { return from_u8(high_nibbles(a.bytes)); }

}  // namespace CQIL_ISA
}  // namespace cqil
