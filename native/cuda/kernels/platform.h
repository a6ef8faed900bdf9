// Where the CUDA names come from: the toolkit, or the host emulator under which the tests run the same sources.
#pragma once
#ifdef CQIL_CUDA_EMULATOR
#include "cuda_emulator.h"
#else
#include <cuda_runtime_api.h>
#endif
