// Loops over the registers of a tile, which must not stay loops, and functions that must stay functions: where GCC
// copies such a loop for several calls, the copies compete for registers and spill. A file without registers of that
// kind defines CQIL_KEEP_LOOPS: its loops over lanes are then compiled once each.
#pragma once

#if defined(__GNUC__) || defined(__clang__)
#define CQIL_NOINLINE __attribute__((noinline))
#else
#define CQIL_NOINLINE
#define CQIL_KEEP_LOOPS
#endif

#ifdef CQIL_KEEP_LOOPS
#define CQIL_UNROLL
#define CQIL_INLINE inline
#else
#define CQIL_UNROLL _Pragma("GCC unroll 8")
#define CQIL_INLINE inline __attribute__((always_inline))
#endif
