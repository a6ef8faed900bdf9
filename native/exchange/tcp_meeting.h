// How ranks on several hosts find each other: all others connect to rank 0, which then tells each where the others
// listen, and each connects to those below it. Linux only.
#pragma once
#include <mutex>
#include <string>

#include "tcp_door.h"

namespace cqil {

class TcpMeeting {
 public:
  // Rank 0 listens from now on.
  TcpMeeting(const cqil_exchange_options& options, TcpPeers& peers);
  void meet(const Deadline& deadline);
  // From any thread.
  void describe(cqil_exchange_state& state) noexcept;

 private:
  void lead(const Deadline& deadline);
  void follow(const Deadline& deadline);
  void serve_until_complete(int first, int end, const Deadline& deadline);
  void enter(int other, const SocketAddress& at, Channel channel, const Deadline& deadline);
  Descriptor connect_to(int other, const SocketAddress& at, const Deadline& deadline);
  bool prove(int other, const Descriptor& fd, const SocketAddress& at, Channel channel, const Deadline& deadline);
  void open_door(int fd);
  void count_refused();

  const int rank_, size_;
  TcpPeers& peers_;
  const Key token_;
  TcpDoor door_;
  Place places_[CQIL_MAX_RANKS] = {};
  SocketAddress leader_, local_;
  std::string address_;
  std::mutex mutex_;  // guards what follows
  int64_t strangers_ = 0;
  std::string stranger_;
};

}  // namespace cqil
