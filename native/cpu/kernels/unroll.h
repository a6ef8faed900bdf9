// Loops over the registers of a tile, which must not stay loops.
#pragma once

#if defined(__GNUC__) || defined(__clang__)
#define CQIL_UNROLL _Pragma("GCC unroll 8")
#else
#define CQIL_UNROLL
#endif
