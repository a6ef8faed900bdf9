// What ranks on several hosts say to each other, byte by byte. Every message has a fixed size; only the bytes that a
// gather or broadcast moves follow their head, and the receiver knows how many there must be. Processors store the
// least byte first, or the magic numbers do not match.
//
// A rank connects to each lower one, twice: once for data, once to be told of aborts. Both sides prove that they have
// the token, which is never sent:
//
//     connects    Hello, with a random number
//     listens     Challenge, with another, and a proof made of the token and all that was said
//     connects    Answer, with its own proof
//     listens     Welcome, or a reason against it
//     rank 0      Roster, on the connection for data, once all have come: where each rank listens
#pragma once
#include <cstdint>

#include "../backend/exchange.h"
#include "siphash.h"
#include "tcp_address.h"

namespace cqil {

constexpr uint64_t kHelloMagic = 0x31686378656c6971, kWordMagic = 0x31777863656c6971;
constexpr uint32_t kHeadMagic = 0x31686c71;

enum Channel : uint32_t { kData = 0, kControl, kChannels };

struct Hello {
  uint64_t magic;
  uint32_t abi;
  int32_t rank;  // that connects
  int32_t size;
  uint32_t channel;
  uint8_t nonce[16];
};

struct Challenge {
  uint8_t nonce[16];
  Hash proof;
};

struct Answer {
  Hash proof;
  Place place;  // where the rank that connects listens, if it does
};

struct Welcome {
  uint32_t status;  // cqil_exchange_status
  char text[252];
};

struct Roster {
  Place places[CQIL_MAX_RANKS];
};

// Before the bytes of a gather or a broadcast.
struct Head {
  uint32_t magic;
  uint32_t kind;
  uint32_t turn;
  uint32_t reserved;
  int64_t bytes;
};

// The last thing that a rank says on the control channel: CQIL_EXCHANGE_CLOSED, or why the exchange ends for all.
struct Word {
  uint64_t magic;
  uint32_t status;
  int32_t about;
  char text[sizeof(cqil_exchange_failure::text)];
};

// The proof that one side has the token, made of all that was said before. `side` and the rank that listens make it
// different from any other proof.
inline Hash proof_of(const Key& token, uint32_t side, const Hello& hello, const uint8_t (&nonce)[16],
                     int32_t listening_rank, const Place& place) {
  struct {
    uint32_t side;
    int32_t listening_rank;
    Hello hello;
    uint8_t nonce[16];
    Place place;
  } said = {side, listening_rank, hello, {}, place};
  static_assert(sizeof said == 8 + sizeof(Hello) + 16 + sizeof(Place), "no padding is hashed");
  std::memcpy(said.nonce, nonce, sizeof nonce);
  return siphash(token, &said, sizeof said);
}
inline Hash listeners_proof(const Key& token, const Hello& hello, const Challenge& challenge, int32_t rank) {
  return proof_of(token, 1, hello, challenge.nonce, rank, Place{});
}
inline Hash connectors_proof(const Key& token, const Hello& hello, const Challenge& challenge, int32_t rank,
                             const Place& place) {
  return proof_of(token, 2, hello, challenge.nonce, rank, place);
}

// Takes equally long wherever the two differ.
inline bool same_hash(const Hash& a, const Hash& b) {
  unsigned different = 0;
  for (size_t i = 0; i < a.size(); i++) different |= static_cast<unsigned>(a[i] ^ b[i]);
  return different == 0;
}

}  // namespace cqil
