#if defined(__linux__)
#include "tcp_meeting.h"

#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace cqil {
namespace {

constexpr int64_t kRetry = INT64_C(50) * 1000 * 1000;

Key token_from(const uint8_t* token) {
  const Key none = {};
  Key key = none;
  if (token) std::copy_n(token, key.size(), key.begin());
  if (key == none)
    throw ExchangeFailure{CQIL_EXCHANGE_INVALID_ARGUMENT, -1,
                          "Ranks on several hosts share a secret of 16 random bytes, found none."};
  return key;
}

// Errors that are no reason to give up: the other rank may not have begun to listen.
bool may_come_yet(int error) {
  return error == ECONNREFUSED || error == ECONNRESET || error == ETIMEDOUT || error == EHOSTUNREACH ||
         error == ENETUNREACH || error == EPIPE;
}

}  // namespace

TcpMeeting::TcpMeeting(const cqil_exchange_options& options, TcpPeers& peers)
    : rank_(options.rank),
      size_(options.size),
      peers_(peers),
      token_(token_from(options.token)),
      door_(rank_, size_, token_) {
  if (!options.address)
    throw ExchangeFailure{CQIL_EXCHANGE_INVALID_ARGUMENT, -1,
                          "Rank 0 needs an address or a network interface on which to listen."};
  const HostAndPort place = split_address(options.address);
  if (rank_ == 0) {
    door_.open(own_address(place.host, place.port));
    address_ = text_of(door_.address());
    return;
  }
  leader_ = other_address(place.host, place.port);
  address_ = options.address;
  if (options.local) local_ = own_address(options.local, 0);
}

void TcpMeeting::meet(const Deadline& deadline) {
  if (rank_ == 0) lead(deadline);
  else follow(deadline);
  door_.close();
  count_refused();
}

void TcpMeeting::lead(const Deadline& deadline) {
  serve_until_complete(1, size_, deadline);
  Roster roster;
  std::copy(std::begin(places_), std::end(places_), std::begin(roster.places));
  for (int r = 1; r < size_; r++)
    if (!peers_.send_all(peers_.data(r), &roster, sizeof roster, deadline, r)) peers_.lost(r, 0);
}

void TcpMeeting::follow(const Deadline& deadline) {
  for (const Channel channel : {kData, kControl}) enter(0, leader_, channel, deadline);
  Roster roster;
  if (!peers_.receive_all(peers_.data(0), &roster, sizeof roster, deadline, 0)) peers_.lost(0, 0);
  for (int r = 1; r < rank_; r++) {
    const SocketAddress at = address_of(roster.places[r]);
    if (at.length == 0)
      peers_.condemn(CQIL_EXCHANGE_OUT_OF_STEP, 0,
                     peers_.name(0) + " does not say where rank " + std::to_string(r) + " listens.");
    for (const Channel channel : {kData, kControl}) enter(r, at, channel, deadline);
  }
  serve_until_complete(rank_ + 1, size_, deadline);
}

void TcpMeeting::serve_until_complete(int first, int end, const Deadline& deadline) {
  for (int r = first; r < end; r++)
    while (!peers_.complete(r)) {
      door_.serve(peers_, places_, deadline, r);
      count_refused();
    }
}

void TcpMeeting::count_refused() {
  for (const std::string& from : door_.refused()) {
    std::lock_guard<std::mutex> lock(mutex_);
    strangers_++;
    stranger_ = from;
  }
}

void TcpMeeting::describe(cqil_exchange_state& state) noexcept {
  copy_text(state.address, sizeof state.address, address_);
  std::lock_guard<std::mutex> lock(mutex_);
  state.strangers = strangers_;
  copy_text(state.stranger, sizeof state.stranger, stranger_);
}

void TcpMeeting::enter(int other, const SocketAddress& at, Channel channel, const Deadline& deadline) {
  peers_.set_name(other, text_of(at));
  for (;;) {
    Descriptor fd = connect_to(other, at, deadline);
    // Every rank but the last is connected to by others, on the address that reaches rank 0, unless told otherwise.
    if (fd && other == 0 && !door_.is_open() && rank_ + 1 < size_) open_door(fd.get());
    if (fd && prove(other, fd, at, channel, deadline)) return peers_.add(other, channel, std::move(fd));
    fd.reset();
    std::vector<pollfd> none;
    peers_.wait(none, deadline, other, kRetry);
  }
}

void TcpMeeting::open_door(int fd) {
  if (local_.length > 0) return door_.open(local_);
  Place place = place_of(bound_address(fd));
  place.port = 0;
  door_.open(address_of(place));
}

Descriptor TcpMeeting::connect_to(int other, const SocketAddress& at, const Deadline& deadline) {
  Descriptor fd(socket(at.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) fail_without_descriptor();
  tune_socket(fd.get());
  int error = connect(fd.get(), at.get(), at.length) == 0 ? 0 : errno;
  if (error == EINPROGRESS) {
    std::vector<pollfd> fds = {{fd.get(), POLLOUT, 0}};
    while (fds[0].revents == 0) peers_.wait(fds, deadline, other);
    socklen_t length = sizeof error;
    getsockopt(fd.get(), SOL_SOCKET, SO_ERROR, &error, &length);
  }
  if (error != 0 && !may_come_yet(error))
    throw ExchangeFailure{CQIL_EXCHANGE_UNAVAILABLE, other,
                          peers_.name(other) + " cannot be reached: " + system_text(error) + "."};
  // A socket that connects to a port of its own machine on which nobody listens may be connected to itself.
  const bool itself = error == 0 && text_of(bound_address(fd.get())) == text_of(at);
  if (error != 0 || itself) fd.reset();
  return fd;
}

// False where the connection ended before the other rank had said anything against this one.
bool TcpMeeting::prove(int other, const Descriptor& fd, const SocketAddress& at, Channel channel,
                       const Deadline& deadline) {
  Hello hello = {kHelloMagic, CQIL_EXCHANGE_ABI, rank_, size_, channel, {}};
  random_bytes(hello.nonce);
  Challenge challenge;
  if (!peers_.send_all(fd.get(), &hello, sizeof hello, deadline, other) ||
      !peers_.receive_all(fd.get(), &challenge, sizeof challenge, deadline, other))
    return false;
  if (!same_hash(challenge.proof, listeners_proof(token_, hello, challenge, other)))
    throw ExchangeFailure{CQIL_EXCHANGE_UNAVAILABLE, other,
                          "Who listens on " + text_of(at) + " does not prove to be rank " + std::to_string(other) +
                              " with the secret that rank " + std::to_string(rank_) + " has."};
  Answer answer = {};
  if (door_.is_open()) answer.place = place_of(door_.address());
  answer.proof = connectors_proof(token_, hello, challenge, other, answer.place);
  Welcome welcome;
  if (!peers_.send_all(fd.get(), &answer, sizeof answer, deadline, other) ||
      !peers_.receive_all(fd.get(), &welcome, sizeof welcome, deadline, other))
    return false;
  welcome.text[sizeof welcome.text - 1] = 0;
  if (welcome.status != CQIL_EXCHANGE_OK)
    throw ExchangeFailure{
        welcome.status == CQIL_EXCHANGE_UNAVAILABLE ? CQIL_EXCHANGE_UNAVAILABLE : CQIL_EXCHANGE_INVALID_ARGUMENT, other,
        welcome.text};
  return true;
}

}  // namespace cqil
#endif
