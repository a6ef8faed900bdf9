// int8 products take sixteen rows side by side, neighbours in memory. Included by the headers of such instruction sets.
#pragma once

namespace cqil {
namespace CQIL_ISA {

constexpr int kLanes = 16;
using U32xN = U32x16;
using F32xN = F32x16;
constexpr bool kLanesInRuns = false;
template <class W>
constexpr bool kByRow = false;

inline F32xN broadcast_lanes(float value) { return broadcast(value); }
inline F32xN load_floats(const float* from) { return load(from); }
inline F32xN load_some_floats(const float* from, int n) { return load_partial(from, n); }
// Lane r: the f16 at at + r * stride, after which two more bytes may be read.
inline F32xN load_halves(const uint8_t* at, int64_t stride) { return from_low_halves(load_column(at, stride)); }

}  // namespace CQIL_ISA
}  // namespace cqil
