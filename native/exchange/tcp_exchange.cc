// Ranks on several hosts: a connection between each two for data, and one more by which they tell each other of aborts.
#include "end.h"
#include "exchanges.h"

#if defined(__linux__)
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "tcp_door.h"
#include "tcp_meeting.h"
#include "../core/wait_briefly.h"

namespace cqil {
namespace {

// A call's message to a rank, its message from that rank, or both, and how far each has come.
struct Flow {
  const uint8_t* from = nullptr;
  uint8_t* to = nullptr;
  bool sends = false, takes = false;
  size_t sent = 0, taken = 0;
  Head head = {};  // of what comes
};

class TcpEnd final : public cqil_exchange_end {
 public:
  explicit TcpEnd(const cqil_exchange_options& options)
      : cqil_exchange_end(options.rank, options.size), peers_(rank, size), meeting_(options, peers_) {}

  void meet(const Deadline& deadline) override { meeting_.meet(deadline); }

  void gather(const uint8_t* mine, uint8_t* all, int64_t bytes, const Deadline& deadline) override {
    Flow flows[CQIL_MAX_RANKS];
    for (int r = 0; r < size; r++) {
      if (r == rank) continue;
      flows[r].sends = flows[r].takes = true;
      flows[r].from = mine;
      flows[r].to = all + r * bytes;
    }
    move(flows, kGather, bytes, deadline);
    if (bytes > 0 && all + rank * bytes != mine) std::memcpy(all + rank * bytes, mine, static_cast<size_t>(bytes));
  }

  void broadcast(uint8_t* data, int64_t bytes, const Deadline& deadline) override {
    Flow flows[CQIL_MAX_RANKS];
    for (int r = 0; r < size; r++) {
      flows[r].from = flows[r].to = data;
      flows[r].sends = rank == 0 && r > 0;
      flows[r].takes = rank > 0 && r == 0;
    }
    move(flows, kBroadcast, bytes, deadline);
  }

  void abort(int lost, const char* why) noexcept override {
    peers_.judge(lost >= 0 ? CQIL_EXCHANGE_RANK_LOST : CQIL_EXCHANGE_ABORTED, lost, why);
  }

  void describe(cqil_exchange_state& state) noexcept override { meeting_.describe(state); }

 private:
  // Moves all messages of a call at once, so that no two ranks wait for each other's buffers.
  void move(Flow (&flows)[CQIL_MAX_RANKS], CallKind kind, int64_t bytes, const Deadline& deadline) {
    // Without this, a call that need not wait would not notice that another rank has ended, or has ended the exchange.
    peers_.listen_to_others();
    const Head head = {kHeadMagic, kind, ++turn_, 0, bytes};
    auto done = [&] {
      bool all = true;
      for (int r = 0; r < size; r++) all = advance(r, flows[r], head) && all;
      return all;
    };
    // A look at a connection takes as long as ten looks at memory.
    while (!wait_briefly<Waiting::kProcesses>(done, 20)) {
      std::vector<pollfd> fds;
      int about = -1;
      for (int r = 0; r < size; r++) {
        const bool to_send = flows[r].sends, to_take = flows[r].takes;
        if (!to_send && !to_take) continue;
        if (about < 0 || (to_take && !flows[about].takes)) about = r;
        fds.push_back({peers_.data(r), static_cast<short>((to_take ? POLLIN : 0) | (to_send ? POLLOUT : 0)), 0});
      }
      peers_.wait(fds, deadline, about);
    }
  }

  // Sends and receives as much as is possible without waiting. Whether that was all.
  bool advance(int other, Flow& flow, const Head& head) {
    const size_t bytes = static_cast<size_t>(head.bytes), whole = sizeof head + bytes;
    if (flow.sends) {
      Head out = head;
      const ssize_t n = transfer(other, out, const_cast<uint8_t*>(flow.from), bytes, flow.sent, true);
      if (n > 0) flow.sent += static_cast<size_t>(n);
      flow.sends = flow.sent < whole;
    }
    if (flow.takes) {
      const ssize_t n = transfer(other, flow.head, flow.to, bytes, flow.taken, false);
      if (n > 0) flow.taken += static_cast<size_t>(n);
      if (flow.taken >= sizeof head) check_head(other, flow.head, head);
      flow.takes = flow.taken < whole;
    }
    return !flow.sends && !flow.takes;
  }

  // One call of the system for the rest of a head and of its bytes.
  ssize_t transfer(int other, Head& head, uint8_t* bytes, size_t n, size_t done, bool sends) {
    iovec parts[2];
    msghdr message = {};
    message.msg_iov = parts;
    if (done < sizeof head)
      parts[message.msg_iovlen++] = {reinterpret_cast<uint8_t*>(&head) + done, sizeof head - done};
    const size_t gone = done < sizeof head ? 0 : done - sizeof head;
    if (n > gone) parts[message.msg_iovlen++] = {bytes + gone, n - gone};
    const int fd = peers_.data(other);
    const ssize_t moved =
        sends ? sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT) : recvmsg(fd, &message, MSG_DONTWAIT);
    if (moved < 0 && would_block(errno)) return 0;
    if (moved < 0) peers_.lost(other, errno);
    if (moved == 0 && !sends) peers_.lost(other, 0);
    return moved;
  }

  // Throws unless the other rank makes the same call, so its bytes are as many as this rank has room for.
  void check_head(int other, const Head& its, const Head& own) {
    if (std::memcmp(&its, &own, sizeof own) == 0) return;
    if (its.magic != kHeadMagic || its.turn != own.turn || its.bytes < 0)
      peers_.condemn(CQIL_EXCHANGE_OUT_OF_STEP, other, peers_.name(other) + " sent what no rank sends.");
    peers_.condemn(CQIL_EXCHANGE_OUT_OF_STEP, other,
                   out_of_step({other, its.kind, its.bytes}, {rank, own.kind, own.bytes}));
  }

  TcpPeers peers_;
  TcpMeeting meeting_;
  uint32_t turn_ = 0;
};

std::unique_ptr<cqil_exchange_end> create(const cqil_exchange_options& options) {
  return std::make_unique<TcpEnd>(options);
}

}  // namespace
}  // namespace cqil

#else

namespace cqil {
namespace {

std::unique_ptr<cqil_exchange_end> create(const cqil_exchange_options&) {
  throw ExchangeFailure{CQIL_EXCHANGE_UNAVAILABLE, -1, "Ranks on several hosts need Linux."};
}

}  // namespace
}  // namespace cqil
#endif

namespace cqil {

const cqil_exchange* tcp_exchange() {
  static const cqil_exchange table = exchange_table<create>("tcp");
  return &table;
}

}  // namespace cqil
