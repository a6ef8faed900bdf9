// The exchanges of this build.
#pragma once
#include "../backend/exchange.h"

namespace cqil {

// Between threads of one process, over plain memory: the twin of shm, for tests and ThreadSanitizer.
const cqil_exchange* memory_exchange();

// Between processes of one host, over shared memory without a name (memfd), which only the user's own processes can
// open while ranks have not all met. Linux only; elsewhere its create fails with CQIL_EXCHANGE_UNAVAILABLE.
const cqil_exchange* shm_exchange();

// name: memory or shm. Null where there is none of this name.
const cqil_exchange* find_exchange(const char* name);

}  // namespace cqil
