// Where other ranks come in: a listening socket, and the visitors who have not yet proved who they are. Whoever says
// something else, nothing, or the wrong proof is a stranger: refused, counted, and never waited for. Linux only.
#pragma once
#include <chrono>
#include <list>
#include <string>
#include <vector>

#include "tcp_peers.h"

namespace cqil {

// Makes a connection send without delay, and notice within some 10 s that the other host is gone.
void tune_socket(int fd);
void random_bytes(uint8_t (&to)[16]);

class TcpDoor {
 public:
  TcpDoor(int rank, int size, const Key& token) : rank_(rank), size_(size), token_(token) {}

  // Fails with CQIL_EXCHANGE_UNAVAILABLE where it cannot listen there.
  void open(const SocketAddress& at);
  bool is_open() const { return !!listener_; }
  SocketAddress address() const;
  // Waits for something to happen at the door, and takes ranks in that have proved themselves. places: where they
  // listen. Throws as TcpPeers::wait does.
  void serve(TcpPeers& peers, Place (&places)[CQIL_MAX_RANKS], const Deadline& deadline, int about);
  // Lets nobody in any more.
  void close();
  // The addresses of those who were refused since the last call.
  std::vector<std::string> refused() { return std::exchange(refused_, {}); }

 private:
  struct Visitor {
    Descriptor fd;
    std::string from;
    std::chrono::steady_clock::time_point until;  // when it must have proved itself
    Hello hello;
    Challenge challenge;
    Answer answer;
    size_t taken;  // bytes received of its present message
    bool challenged;
  };
  enum class Step { kWaits, kStranger, kDone };

  void let_in();
  Step hear(Visitor& visitor, TcpPeers& peers, Place (&places)[CQIL_MAX_RANKS]);
  Step challenge(Visitor& visitor);
  Step judge(Visitor& visitor, TcpPeers& peers, Place (&places)[CQIL_MAX_RANKS]);

  const int rank_, size_;
  const Key token_;
  Descriptor listener_;
  std::list<Visitor> visitors_;
  std::vector<std::string> refused_;
};

}  // namespace cqil
