// The exchanges of this build.
#pragma once
#include "../backend/exchange.h"

namespace cqil {

// Between threads of one process, over plain memory: the twin of shm, for tests and ThreadSanitizer.
const cqil_exchange* memory_exchange();

// Between processes of one host, over shared memory without a name (memfd), which only processes of the same user can
// open, and only until all ranks have met. Linux only; elsewhere its create fails with CQIL_EXCHANGE_UNAVAILABLE.
const cqil_exchange* shm_exchange();

// Between hosts, over TCP: a connection between each two ranks, and a second for aborts. Bytes are not encrypted; who
// connects must prove that it has the token. A host that is gone is noticed within some 12 s. Linux only, like shm.
const cqil_exchange* tcp_exchange();

// name: memory, shm or tcp. Null where there is none of this name.
const cqil_exchange* find_exchange(const char* name);

}  // namespace cqil
