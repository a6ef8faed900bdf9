#if defined(__linux__)
#include "tcp_peers.h"

#include <sys/eventfd.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <system_error>

namespace cqil {
namespace {

using Clock = Deadline::Clock;

Word word_of(cqil_exchange_status status, int about, const std::string& text) {
  Word word = {kWordMagic, static_cast<uint32_t>(status), about, ""};
  copy_text(word.text, sizeof word.text, text);
  return word;
}

// A control channel carries little, so its buffers always have room.
void send_word(int fd, const Word& word) {
  if (fd >= 0) (void)!send(fd, &word, sizeof word, MSG_NOSIGNAL | MSG_DONTWAIT);
}

// What the end of a connection to a rank means. error: 0 where it ended without any.
std::string fate(int error) {
  const bool ended = error == 0 || error == ECONNRESET || error == EPIPE;
  return ended ? " has ended." : " cannot be reached: " + system_text(error) + ".";
}

}  // namespace

std::string system_text(int error) { return std::system_category().message(error); }

bool would_block(int error) { return error == EAGAIN || error == EWOULDBLOCK || error == EINTR; }

void fail_without_descriptor() {
  throw ExchangeFailure{CQIL_EXCHANGE_OUT_OF_MEMORY, -1, "No descriptor is left: " + system_text(errno) + "."};
}

TcpPeers::TcpPeers(int rank, int size) : rank_(rank), size_(size), bell_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  if (!bell_) fail_without_descriptor();
  for (int r = 0; r < size_; r++) peers_[r].name = "Rank " + std::to_string(r);
}

TcpPeers::~TcpPeers() {
  // What was sent before is still delivered; then the others read the end of the connection.
  for (int r = 0; r < size_; r++) {
    send_word(peers_[r].control.get(), word_of(CQIL_EXCHANGE_CLOSED, rank_, ""));
    for (const Descriptor* fd : {&peers_[r].control, &peers_[r].data})
      if (*fd) shutdown(fd->get(), SHUT_WR);
  }
}

void TcpPeers::set_name(int of, const std::string& address) {
  peers_[of].name = "Rank " + std::to_string(of) + " (" + address + ")";
}

void TcpPeers::add(int of, Channel channel, Descriptor fd) {
  if (channel == kData) {
    peers_[of].data = std::move(fd);
    return;
  }
  std::lock_guard<std::mutex> lock(mutex_);
  peers_[of].control = std::move(fd);
  if (judged_) send_word(peers_[of].control.get(), word_of(verdict_.status, verdict_.rank, verdict_.text));
}

void TcpPeers::judge(cqil_exchange_status status, int about, const std::string& text) noexcept {
  std::lock_guard<std::mutex> lock(mutex_);
  if (judged_) return;
  verdict_ = {status, about, text};
  judged_ = true;
  const Word word = word_of(status, about, text);
  for (int r = 0; r < size_; r++) send_word(peers_[r].control.get(), word);
  const uint64_t ring = 1;
  (void)!write(bell_.get(), &ring, sizeof ring);
}

void TcpPeers::throw_verdict() {
  if (!judged_) return;
  std::lock_guard<std::mutex> lock(mutex_);
  throw verdict_;
}

void TcpPeers::condemn(cqil_exchange_status status, int about, const std::string& text) {
  judge(status, about, text);
  std::lock_guard<std::mutex> lock(mutex_);
  throw verdict_;
}

void TcpPeers::hear(int of) {
  Peer& peer = peers_[of];
  while (!peer.silent) {
    auto* to = reinterpret_cast<uint8_t*>(&peer.word) + peer.word_bytes;
    const ssize_t n = recv(peer.control.get(), to, sizeof peer.word - peer.word_bytes, MSG_DONTWAIT);
    if (n < 0 && would_block(errno)) return;
    if (n <= 0) {
      const int error = n == 0 ? 0 : errno;
      peer.silent = true;
      if (!peer.closed) judge(CQIL_EXCHANGE_RANK_LOST, of, peer.name + fate(error));
      return;
    }
    peer.word_bytes += static_cast<size_t>(n);
    if (peer.word_bytes < sizeof peer.word) continue;
    peer.word_bytes = 0;
    Word& word = peer.word;
    word.text[sizeof word.text - 1] = 0;
    const bool known = word.magic == kWordMagic && word.status > CQIL_EXCHANGE_OK &&
                       word.status <= CQIL_EXCHANGE_INTERNAL && word.about >= -1 && word.about < size_;
    if (!known) judge(CQIL_EXCHANGE_OUT_OF_STEP, of, peer.name + " sent what no rank sends.");
    else if (word.status == CQIL_EXCHANGE_CLOSED) peer.closed = true;
    else judge(static_cast<cqil_exchange_status>(word.status), word.about, word.text);
  }
}

void TcpPeers::listen_to_others() {
  for (int r = 0; r < size_; r++)
    if (peers_[r].control) hear(r);
  throw_verdict();
}

void TcpPeers::wait(std::vector<pollfd>& fds, const Deadline& deadline, int about, int64_t moment_ns) {
  throw_verdict();
  const size_t own = fds.size();
  fds.push_back({bell_.get(), POLLIN, 0});
  for (int r = 0; r < size_; r++)
    if (peers_[r].control && !peers_[r].silent) fds.push_back({peers_[r].control.get(), POLLIN, 0});
  const auto now = Clock::now();
  if (deadline.passed(now))
    condemn(CQIL_EXCHANGE_RANK_LOST, about, name(about) + " has not answered for " + deadline.patience() + ".");
  constexpr std::chrono::hours kLong(1);
  const auto left = deadline.left(now, moment_ns < 0 ? kLong : std::chrono::nanoseconds(moment_ns));
  const timespec time = {static_cast<time_t>(left.count() / 1000000000), static_cast<long>(left.count() % 1000000000)};
  const int ready = ppoll(fds.data(), fds.size(), &time, nullptr);
  if (ready < 0 && errno != EINTR)
    condemn(CQIL_EXCHANGE_INTERNAL, -1, "Waiting for other ranks failed: " + system_text(errno) + ".");
  bool heard = false;
  for (size_t i = own; ready > 0 && i < fds.size(); i++) heard = heard || fds[i].revents != 0;
  fds.resize(own);
  if (ready < 0)
    for (pollfd& fd : fds) fd.revents = 0;
  if (heard) listen_to_others();
}

void TcpPeers::lost(int of, int error) {
  // What it said on its other connection may arrive a little later.
  const Deadline moment(INT64_C(1000) * 1000 * 1000);
  for (;;) {
    listen_to_others();
    if (peers_[of].closed)
      throw ExchangeFailure{CQIL_EXCHANGE_CLOSED, of, name(of) + " has closed its end of the exchange."};
    const auto now = Clock::now();
    if (peers_[of].silent || moment.passed(now)) break;
    std::vector<pollfd> none;
    wait(none, Deadline(0), of, moment.left(now, std::chrono::seconds(1)).count());
  }
  condemn(CQIL_EXCHANGE_RANK_LOST, of, name(of) + fate(error));
}

bool TcpPeers::send_all(int fd, const void* data, size_t n, const Deadline& deadline, int about) {
  const auto* from = static_cast<const uint8_t*>(data);
  while (n > 0) {
    const ssize_t sent = send(fd, from, n, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0 && !would_block(errno)) return false;
    if (sent > 0) from += sent, n -= static_cast<size_t>(sent);
    std::vector<pollfd> fds = {{fd, POLLOUT, 0}};
    if (n > 0) wait(fds, deadline, about);
  }
  return true;
}

bool TcpPeers::receive_all(int fd, void* data, size_t n, const Deadline& deadline, int about) {
  auto* to = static_cast<uint8_t*>(data);
  while (n > 0) {
    const ssize_t taken = recv(fd, to, n, MSG_DONTWAIT);
    if (taken == 0 || (taken < 0 && !would_block(errno))) return false;
    if (taken > 0) to += taken, n -= static_cast<size_t>(taken);
    std::vector<pollfd> fds = {{fd, POLLIN, 0}};
    if (n > 0) wait(fds, deadline, about);
  }
  return true;
}

}  // namespace cqil
#endif
