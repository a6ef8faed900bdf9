// What moves bytes between ranks: one narrow C table. Ranks are processes, each with a device, or in tests threads. All
// make the same calls in the same order, and an exchange knows nothing of what the bytes mean. The implementations are
// in native/exchange: `memory` (threads of one process), `shm` (processes of one host), `tcp` (hosts).
//
//     create     on rank 0; its state's address goes to the others by whatever started them; create on the others
//     meet       all wait until all have come
//     gather, broadcast, as often as wanted
//     close
//
// After a call has failed, except with CQIL_EXCHANGE_INVALID_ARGUMENT, an end is good for nothing but abort, describe
// and close: every later call fails in the same way.
#pragma once
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// Raised whenever anything in this file changes. Ranks of different versions refuse each other.
#define CQIL_EXCHANGE_ABI 1

// Ranks at most.
#define CQIL_MAX_RANKS 8

// Bytes that a rank gives to one gather, or rank 0 to one broadcast, at most.
#define CQIL_EXCHANGE_MAX_BYTES (INT64_C(1) << 30)

// Bytes of the secret that ranks on different hosts share.
#define CQIL_EXCHANGE_TOKEN_BYTES 16

typedef enum cqil_exchange_status {
  CQIL_EXCHANGE_OK = 0,
  CQIL_EXCHANGE_INVALID_ARGUMENT,
  CQIL_EXCHANGE_UNAVAILABLE,    // not on this system, or the address cannot be had or found: BACKEND_UNAVAILABLE
  CQIL_EXCHANGE_OUT_OF_MEMORY,  // or out of descriptors
  CQIL_EXCHANGE_ABORTED,        // a rank called abort, and said that no rank was lost
  CQIL_EXCHANGE_CLOSED,         // the rank that was waited for has closed its end, as it should
  CQIL_EXCHANGE_RANK_LOST,      // a rank has ended, cannot be reached, or did not come or answer in time
  CQIL_EXCHANGE_OUT_OF_STEP,    // ranks did not make the same call, or one sent what no rank sends
  CQIL_EXCHANGE_INTERNAL        // the system refused what it ought to do
} cqil_exchange_status;

// Filled by a call that returns anything but CQIL_EXCHANGE_OK.
typedef struct cqil_exchange_failure {
  int32_t rank;    // the rank that is lost, has closed its end or is out of step; -1: none
  char text[512];  // one sentence
} cqil_exchange_failure;

typedef struct cqil_exchange_options {
  int32_t rank;  // 0 .. size - 1; rank 0 is the leader
  int32_t size;  // 1 .. CQIL_MAX_RANKS, the same on all ranks
  // memory, shm: null on rank 0. tcp: where rank 0 listens, HOST:PORT with an address or the name of a network
  // interface for HOST, [ADDRESS]:PORT for IPv6; port 0 is any that is free. On other ranks: what describe gives on
  // rank 0. shm also takes fd:N for the descriptor that address names, inherited as number N; create then closes N.
  const char* address;
  // tcp: the address or interface on which other ranks find this one; null: that of the connection to rank 0. Not on
  // rank 0.
  const char* local;
  // tcp: [CQIL_EXCHANGE_TOKEN_BYTES], random, the same on all ranks. It proves a rank to the others and is never sent.
  // Null elsewhere. It is copied. Nobody may put it where other users can read it: arguments of a process, an address.
  const uint8_t* token;
  // memory, shm: bytes of a piece. Longer messages go in pieces. 0: a default. Read on rank 0.
  int64_t slot_bytes;
} cqil_exchange_options;

typedef struct cqil_exchange_state {
  int32_t rank;
  int32_t size;
  char address[128];  // where other ranks find rank 0, without any secret; elsewhere what create was given
  int64_t strangers;  // connections refused because they proved nothing, or not in time
  char stranger[64];  // where the last of them came from
} cqil_exchange_state;

// One rank's end of an exchange.
typedef struct cqil_exchange_end cqil_exchange_end;

// patience_ns is how long a call may take, in nanoseconds; 0: for ever. A call that takes longer ends the exchange for
// all ranks with CQIL_EXCHANGE_RANK_LOST and the rank that was waited for. It can come later by 50 ms.
// Calls of one end never overlap, except that abort and describe may be called from any thread until close begins. A
// wait spins for 10 microseconds, then yields for 100, then sleeps. Within 50 ms of waiting it sees that a rank's
// process has ended, whichever rank it waits for; tcp sees within some 12 s that a host is gone.
// failure may be null.
typedef struct cqil_exchange {
  uint32_t abi;
  const char* name;
  // Waits for nobody, but on tcp for an answer of the system that resolves the names of hosts.
  cqil_exchange_status (*create)(const cqil_exchange_options* options, cqil_exchange_end** out,
                                 cqil_exchange_failure* failure);
  // Once, before gather and broadcast. Afterwards nobody else can come: addresses, ports and descriptors that others
  // could find are gone.
  cqil_exchange_status (*meet)(cqil_exchange_end* end, int64_t patience_ns, cqil_exchange_failure* failure);
  // all[r] = mine of rank r, for all ranks r, on all ranks. mine: [bytes]; all: [size, bytes]; bytes from 0 to
  // CQIL_EXCHANGE_MAX_BYTES, the same on all ranks. mine may be all + rank * bytes; otherwise they do not overlap.
  // Returns when this rank has what it needs; others may still be reading.
  cqil_exchange_status (*gather)(cqil_exchange_end* end, const void* mine, void* all, int64_t bytes,
                                 int64_t patience_ns, cqil_exchange_failure* failure);
  // data [bytes] of rank 0 to all others, where bytes is the same. Rank 0 does not wait until they have it, only until
  // there is room; a rank that waits uses no processor and may do so for days.
  cqil_exchange_status (*broadcast)(cqil_exchange_end* end, void* data, int64_t bytes, int64_t patience_ns,
                                    cqil_exchange_failure* failure);
  // Ends every wait, on all ranks, and every later call. They fail with CQIL_EXCHANGE_RANK_LOST where rank is one, or
  // with CQIL_EXCHANGE_ABORTED where it is -1, and with why for a text, cut short at 511 bytes. The first reason stays.
  // Never waits.
  void (*abort)(cqil_exchange_end* end, int32_t rank, const char* why);
  void (*describe)(cqil_exchange_end* end, cqil_exchange_state* state);
  // What this rank has given before still reaches the others. They see CQIL_EXCHANGE_CLOSED when they next wait for it.
  // end may be null.
  void (*close)(cqil_exchange_end* end);
} cqil_exchange;

// What a shared library with an exchange exports, under this name: its table, which lives as long as the library.
#define CQIL_EXCHANGE_ENTRY "cqil_exchange_entry"
typedef const cqil_exchange* (*cqil_exchange_entry_function)(void);

#ifdef __cplusplus
}
#endif
