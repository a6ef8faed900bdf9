// The connections of a rank to all others, and what ends its waiting beside data: a word of another rank, the end of a
// connection, an abort here, a deadline. Linux only.
#pragma once
#include <poll.h>

#include <atomic>
#include <mutex>
#include <string>
#include <vector>

#include "descriptor.h"
#include "end.h"
#include "tcp_messages.h"

namespace cqil {

// Linux's message for an error number.
std::string system_text(int error);
// Whether a call on a socket failed with this error only because it would have to wait.
bool would_block(int error);
// Throws CQIL_EXCHANGE_OUT_OF_MEMORY with the reason that errno has.
[[noreturn]] void fail_without_descriptor();

class TcpPeers {
 public:
  TcpPeers(int rank, int size);
  ~TcpPeers();

  // The connection for data, which only the thread that makes calls may use.
  int data(int of) const { return peers_[of].data.get(); }
  bool complete(int of) const { return peers_[of].data && peers_[of].control; }
  bool has(int of, Channel channel) const { return channel == kData ? !!peers_[of].data : !!peers_[of].control; }
  const std::string& name(int of) const { return peers_[of].name; }
  void set_name(int of, const std::string& address);
  void add(int of, Channel channel, Descriptor fd);

  // Waits until one of fds is ready, or moment_ns have passed. fds has room for CQIL_MAX_RANKS + 1 more. Throws the
  // verdict, if there is one. A deadline that passes becomes a verdict about rank `about`.
  void wait(std::vector<pollfd>& fds, const Deadline& deadline, int about, int64_t moment_ns = -1);
  // Takes what other ranks have said. Throws the verdict.
  void listen_to_others();
  // The connection to a rank has ended, or failed with this error: throws why, once that is known.
  [[noreturn]] void lost(int of, int error);

  // From any thread. The first verdict stays; others hear of it.
  void judge(cqil_exchange_status status, int about, const std::string& text) noexcept;
  [[noreturn]] void condemn(cqil_exchange_status status, int about, const std::string& text);
  void throw_verdict();
  // Sends n bytes whole, on a connection whose other side reads; false where it is lost.
  bool send_all(int fd, const void* data, size_t n, const Deadline& deadline, int about);
  // Receives n bytes; false where the connection ends before.
  bool receive_all(int fd, void* data, size_t n, const Deadline& deadline, int about);

 private:
  struct Peer {
    Descriptor data, control;
    std::string name;
    bool closed = false;  // it has said so
    Word word = {};       // being received
    size_t word_bytes = 0;
    bool silent = false;  // nothing more comes on its control channel
  };
  void hear(int of);

  const int rank_, size_;
  Peer peers_[CQIL_MAX_RANKS];
  Descriptor bell_;
  std::atomic<bool> judged_{false};
  std::mutex mutex_;  // of the verdict, and of what is sent on control channels
  ExchangeFailure verdict_ = {CQIL_EXCHANGE_OK, -1, ""};
};

}  // namespace cqil
