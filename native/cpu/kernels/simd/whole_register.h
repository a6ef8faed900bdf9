// All sixteen lanes are one register, or are left to the compiler. Included by the headers of such instruction sets.
#pragma once

namespace cqil {
namespace CQIL_ISA {

using Register = F32x16;
constexpr int kRegisterLanes = 16;
inline Register zero_register() { return zero(); }
inline Register load_register(const float* from) { return load(from); }
inline void store_register(float* to, const Register& a) { store(to, a); }
inline Register fma_register(const Register& a, const Register& b, const Register& c) { return fma(a, b, c); }
inline F32x16 with_last_register(const float*, const Register& last) { return last; }

}  // namespace CQIL_ISA
}  // namespace cqil
