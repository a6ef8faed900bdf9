// The exchanges of this build.
#pragma once
#include "../backend/exchange.h"

namespace cqil {

// Between threads of one process, over plain memory: the twin of shm, for tests and ThreadSanitizer.
const cqil_exchange* memory_exchange();

// name: memory. Null where there is none of this name.
const cqil_exchange* find_exchange(const char* name);

}  // namespace cqil
