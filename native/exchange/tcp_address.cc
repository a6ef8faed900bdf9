#if defined(__linux__)
#include "tcp_address.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <netdb.h>
#include <netinet/in.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

namespace cqil {
namespace {

SocketAddress copied(const sockaddr* from, socklen_t length) {
  SocketAddress address;
  std::memcpy(&address.storage, from, length);
  address.length = length;
  return address;
}

void set_port(SocketAddress& address, uint16_t port) {
  if (address.storage.ss_family == AF_INET) reinterpret_cast<sockaddr_in&>(address.storage).sin_port = htons(port);
  else reinterpret_cast<sockaddr_in6&>(address.storage).sin6_port = htons(port);
}

// The first IPv4 address of an interface, or else its first of IPv6; a length of 0 where there is no such interface.
SocketAddress address_of_interface(const std::string& name) {
  SocketAddress found;
  ifaddrs* all = nullptr;
  if (getifaddrs(&all) != 0) return found;
  for (const ifaddrs* it = all; it; it = it->ifa_next) {
    if (!it->ifa_addr || name != it->ifa_name) continue;
    if (it->ifa_addr->sa_family == AF_INET && found.storage.ss_family != AF_INET)
      found = copied(it->ifa_addr, sizeof(sockaddr_in));
    if (it->ifa_addr->sa_family == AF_INET6 && found.length == 0) found = copied(it->ifa_addr, sizeof(sockaddr_in6));
  }
  freeifaddrs(all);
  return found;
}

SocketAddress resolved(const std::string& host) {
  addrinfo wanted = {}, *found = nullptr;
  wanted.ai_family = AF_UNSPEC;
  wanted.ai_socktype = SOCK_STREAM;
  const int error = getaddrinfo(host.c_str(), nullptr, &wanted, &found);
  if (error != 0)
    throw ExchangeFailure{CQIL_EXCHANGE_UNAVAILABLE, -1,
                          "The address of " + host + " cannot be found: " + gai_strerror(error) + "."};
  const SocketAddress address = copied(found->ai_addr, found->ai_addrlen);
  freeaddrinfo(found);
  return address;
}

bool is_every_address(const SocketAddress& address) {
  if (address.storage.ss_family == AF_INET)
    return reinterpret_cast<const sockaddr_in&>(address.storage).sin_addr.s_addr == htonl(INADDR_ANY);
  return IN6_IS_ADDR_UNSPECIFIED(&reinterpret_cast<const sockaddr_in6&>(address.storage).sin6_addr);
}

}  // namespace

Place place_of(const SocketAddress& address) {
  Place place = {};
  if (address.storage.ss_family == AF_INET) {
    const auto& its = reinterpret_cast<const sockaddr_in&>(address.storage);
    place.family = 4;
    place.port = ntohs(its.sin_port);
    std::memcpy(place.address, &its.sin_addr, 4);
  } else if (address.storage.ss_family == AF_INET6) {
    const auto& its = reinterpret_cast<const sockaddr_in6&>(address.storage);
    place.family = 6;
    place.port = ntohs(its.sin6_port);
    std::memcpy(place.address, &its.sin6_addr, 16);
    place.scope = its.sin6_scope_id;
  }
  return place;
}

SocketAddress address_of(const Place& place) {
  SocketAddress address;
  if (place.family == 4) {
    auto& its = reinterpret_cast<sockaddr_in&>(address.storage);
    its.sin_family = AF_INET;
    std::memcpy(&its.sin_addr, place.address, 4);
    address.length = sizeof its;
  } else if (place.family == 6) {
    auto& its = reinterpret_cast<sockaddr_in6&>(address.storage);
    its.sin6_family = AF_INET6;
    std::memcpy(&its.sin6_addr, place.address, 16);
    its.sin6_scope_id = place.scope;
    address.length = sizeof its;
  }
  if (address.length > 0) set_port(address, place.port);
  return address;
}

SocketAddress bound_address(int fd) {
  SocketAddress address;
  address.length = sizeof address.storage;
  if (getsockname(fd, reinterpret_cast<sockaddr*>(&address.storage), &address.length) != 0) address.length = 0;
  return address;
}

std::string text_of(const SocketAddress& address) {
  char host[NI_MAXHOST], port[NI_MAXSERV];
  if (address.length == 0 || getnameinfo(address.get(), address.length, host, sizeof host, port, sizeof port,
                                         NI_NUMERICHOST | NI_NUMERICSERV) != 0)
    return "an unknown address";
  const bool v6 = address.storage.ss_family == AF_INET6;
  return (v6 ? "[" + std::string(host) + "]" : std::string(host)) + ":" + port;
}

HostAndPort split_address(const std::string& text) {
  const size_t colon = text.rfind(':');
  const bool bracketed = text.size() > 2 && text[0] == '[';
  const bool closed = bracketed && colon != std::string::npos && text[colon - 1] == ']';
  char* end = nullptr;
  const std::string digits = colon == std::string::npos ? "" : text.substr(colon + 1);
  const unsigned long port = std::strtoul(digits.c_str(), &end, 10);
  const bool number = !digits.empty() && digits.size() <= 5 && digits[0] >= '0' && digits[0] <= '9' && !*end;
  const std::string host = !number ? "" : bracketed ? text.substr(1, colon - 2) : text.substr(0, colon);
  // An IPv6 address without brackets has more colons, and does not say which of them the port follows.
  const bool plain = !bracketed && host.find(':') == std::string::npos;
  if (!number || port > 65535 || host.empty() || !(plain || closed))
    throw ExchangeFailure{CQIL_EXCHANGE_INVALID_ARGUMENT, -1,
                          "Ranks on several hosts meet at HOST:PORT or [ADDRESS]:PORT, found " + text + "."};
  return {host, static_cast<uint16_t>(port)};
}

SocketAddress own_address(const std::string& host, uint16_t port) {
  SocketAddress address = address_of_interface(host);
  if (address.length == 0) address = resolved(host);
  if (is_every_address(address))
    throw ExchangeFailure{CQIL_EXCHANGE_INVALID_ARGUMENT, -1,
                          host + " is every address of this machine; ranks listen on one interface or address."};
  set_port(address, port);
  return address;
}

SocketAddress other_address(const std::string& host, uint16_t port) {
  SocketAddress address = resolved(host);
  set_port(address, port);
  return address;
}

}  // namespace cqil
#endif
