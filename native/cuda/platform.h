// Where the CUDA names come from: the toolkit, or the host emulator under which the tests run the same sources.
#pragma once
#ifdef CQIL_CUDA_EMULATOR
#include "cuda_emulator.h"
#else
#include <cuda_runtime_api.h>
#endif

// A function that nvcc compiles for both.
#ifdef __CUDACC__
#define CQIL_HOST_DEVICE __host__ __device__
#else
#define CQIL_HOST_DEVICE
#endif
