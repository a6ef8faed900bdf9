// Addresses of sockets and their texts. Linux only.
#pragma once
#include <sys/socket.h>

#include <cstdint>
#include <string>

#include "end.h"

namespace cqil {

struct SocketAddress {
  sockaddr_storage storage = {};
  socklen_t length = 0;
  const sockaddr* get() const { return reinterpret_cast<const sockaddr*>(&storage); }
};

// An address in the form in which ranks send it to each other.
struct Place {
  uint16_t family;  // 4, 6, or 0 for none
  uint16_t port;
  uint8_t address[16];
  uint32_t scope;
};

Place place_of(const SocketAddress& address);
// A place without a family gives a length of 0.
SocketAddress address_of(const Place& place);

// Where a socket is bound on this machine; a length of 0 where it is not, or there is no socket.
SocketAddress bound_address(int fd);

// "10.0.0.1:4000", "[fe80::1%eth0]:4000"
std::string text_of(const SocketAddress& address);

struct HostAndPort {
  std::string host;
  uint16_t port;
};
// HOST:PORT or [ADDRESS]:PORT; fails with CQIL_EXCHANGE_INVALID_ARGUMENT.
HostAndPort split_address(const std::string& text);

// Where this machine can listen: host is the name of one of its network interfaces, an address, or a name that stands
// for one. Every address at once (0.0.0.0, ::) is refused: others have to find this one.
SocketAddress own_address(const std::string& host, uint16_t port);
// Where another machine listens.
SocketAddress other_address(const std::string& host, uint16_t port);

}  // namespace cqil
