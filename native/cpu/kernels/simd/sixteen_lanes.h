// int8 products take sixteen rows side by side. Included by the headers of such instruction sets.
#pragma once

namespace cqil {
namespace CQIL_ISA {

constexpr int kLanes = 16;
using U32xN = U32x16;
using F32xN = F32x16;
inline F32xN broadcast_lanes(float value) { return broadcast(value); }
inline F32xN load_floats(const float* from) { return load(from); }
inline F32xN load_some_floats(const float* from, int n) { return load_partial(from, n); }
inline F32xN load_halves(const uint8_t* from) { return from_f16(from); }

}  // namespace CQIL_ISA
}  // namespace cqil
