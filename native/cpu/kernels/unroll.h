// Loops over the registers of a tile, which must not stay loops, and functions that must stay functions: where GCC copies such a loop
// for several calls, the copies compete for registers and spill.
#pragma once

#if defined(__GNUC__) || defined(__clang__)
#define CQIL_UNROLL _Pragma("GCC unroll 8")
#define CQIL_NOINLINE __attribute__((noinline))
#define CQIL_INLINE inline __attribute__((always_inline))
#else
#define CQIL_UNROLL
#define CQIL_NOINLINE
#define CQIL_INLINE inline
#endif
