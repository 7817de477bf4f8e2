// One socket that closes itself, and the few operations on it, none of which can wait without end.
#pragma once

#include <shardkit/backends/detail/tcp_tuning.hpp>
#include <shardkit/core/detail/waiting.hpp>
#include <shardkit/core/error.hpp>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstring>
#include <memory>
#include <string>
#include <utility>

#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

namespace shardkit::detail {

/// "name: text of errno".
inline std::string system_complaint(const std::string& what) { return what + ": " + std::strerror(errno); }

class tcp_socket {
 public:
  tcp_socket() noexcept = default;
  explicit tcp_socket(int descriptor) noexcept : descriptor_(descriptor) {}
  tcp_socket(tcp_socket&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}
  tcp_socket& operator=(tcp_socket&& other) noexcept {
    if (this != &other) {
      close();
      descriptor_ = std::exchange(other.descriptor_, -1);
    }
    return *this;
  }
  ~tcp_socket() { close(); }

  bool open() const noexcept { return descriptor_ >= 0; }
  int descriptor() const noexcept { return descriptor_; }
  void close() noexcept {
    if (descriptor_ >= 0) ::close(std::exchange(descriptor_, -1));
  }

  /// Waits for `events`; false at the deadline. Seconds may be infinite.
  bool wait(short events, double seconds) const noexcept {
    pollfd entry{descriptor_, events, 0};
    const double end = now_seconds() + seconds;
    for (;;) {
      const int result = ::poll(&entry, 1, milliseconds(end - now_seconds()));
      if (result > 0) return true;
      if (result < 0 && errno != EINTR) return true;  // the operation that follows says what is wrong
      if (now_seconds() >= end) return false;
    }
  }
  /// For poll: at least 1 while time is left, at most a minute, so that callers look at their clocks.
  static int milliseconds(double seconds) noexcept {
    if (seconds <= 0) return 0;
    return seconds < 60 ? std::max(1, static_cast<int>(seconds * 1e3)) : 60000;
  }

  /// What has arrived, without waiting: bytes, 0 where the other side has closed or is lost, -1 where there is nothing.
  std::ptrdiff_t receive(void* to, std::size_t bytes) const noexcept {
    for (;;) {
      const ssize_t got = ::recv(descriptor_, to, bytes, MSG_DONTWAIT);
      if (got >= 0) return got;
      if (errno == EINTR) continue;
      return errno == EAGAIN || errno == EWOULDBLOCK ? -1 : 0;
    }
  }
  /// Sends what fits now: bytes, or -1 where the connection is lost.
  std::ptrdiff_t send(const void* from, std::size_t bytes) const noexcept {
    for (;;) {
      const ssize_t sent = ::send(descriptor_, from, bytes, MSG_DONTWAIT | MSG_NOSIGNAL);
      if (sent >= 0) return sent;
      if (errno == EINTR) continue;
      return errno == EAGAIN || errno == EWOULDBLOCK ? 0 : -1;
    }
  }

  enum class outcome { done, closed, expired };

  /// Exactly so many bytes.
  outcome receive_all(void* to, std::size_t bytes, double seconds) const noexcept {
    const double end = now_seconds() + seconds;
    for (char* at = static_cast<char*>(to); bytes != 0;) {
      const std::ptrdiff_t got = receive(at, bytes);
      if (got == 0) return outcome::closed;
      if (got < 0) {
        if (!wait(POLLIN, end - now_seconds())) return outcome::expired;
        continue;
      }
      at += got;
      bytes -= static_cast<std::size_t>(got);
    }
    return outcome::done;
  }
  outcome send_all(const void* from, std::size_t bytes, double seconds) const noexcept {
    const double end = now_seconds() + seconds;
    for (const char* at = static_cast<const char*>(from); bytes != 0;) {
      const std::ptrdiff_t sent = send(at, bytes);
      if (sent < 0) return outcome::closed;
      if (sent == 0 && !wait(POLLOUT, end - now_seconds())) return outcome::expired;
      at += sent;
      bytes -= static_cast<std::size_t>(sent);
    }
    return outcome::done;
  }

  void tune() const noexcept { tune_connection(descriptor_); }
  void set(int level, int option, int value) const noexcept { set_option(descriptor_, level, option, value); }

 private:
  int descriptor_ = -1;
};

struct free_addresses {
  void operator()(addrinfo* list) const noexcept { ::freeaddrinfo(list); }
};
using tcp_addresses = std::unique_ptr<addrinfo, free_addresses>;

/// Throws transport_error where the name has no address.
inline tcp_addresses resolve(const std::string& host, int port) {
  addrinfo wanted{}, *found = nullptr;
  wanted.ai_family = AF_UNSPEC;
  wanted.ai_socktype = SOCK_STREAM;
  wanted.ai_flags = AI_NUMERICSERV;
  const int result = ::getaddrinfo(host.c_str(), std::to_string(port).c_str(), &wanted, &found);
  if (result != 0) throw transport_error("'" + host + "' has no address: " + ::gai_strerror(result));
  return tcp_addresses(found);
}

/// Whether an address can be reached from this machine alone.
inline bool is_loopback(const sockaddr& address) noexcept {
  if (address.sa_family == AF_INET)
    return (ntohl(reinterpret_cast<const sockaddr_in&>(address).sin_addr.s_addr) >> 24) == 127;
  if (address.sa_family != AF_INET6) return false;
  const in6_addr& six = reinterpret_cast<const sockaddr_in6&>(address).sin6_addr;
  return IN6_IS_ADDR_LOOPBACK(&six) || (IN6_IS_ADDR_V4MAPPED(&six) && six.s6_addr[12] == 127);
}

/// Listens on the first of the ports that is free, and on this address alone. Throws transport_error.
inline tcp_socket tcp_listen(const std::string& address, int first_port, int ports) {
  std::string complaint;
  for (int port = first_port; port < first_port + ports; ++port) {
    const tcp_addresses found = resolve(address, port);
    tcp_socket socket(::socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
    // A port whose last connections are still in their closing state is free; on Linux one that is listened on is not.
    if (socket.open()) socket.set(SOL_SOCKET, SO_REUSEADDR, 1);
    if (socket.open() && ::bind(socket.descriptor(), found->ai_addr, found->ai_addrlen) == 0 &&
        ::listen(socket.descriptor(), 256) == 0 && ::fcntl(socket.descriptor(), F_SETFL, O_NONBLOCK) == 0)
      return socket;
    complaint = system_complaint(address + " port " + std::to_string(port));
  }
  throw transport_error("rank 0 cannot listen on " + complaint +
                        "; choose another port (SHARDKIT_PORT) or an address of this machine");
}

/// The port that a socket is bound to.
inline int port_of(const tcp_socket& socket) noexcept {
  sockaddr_storage address{};
  socklen_t length = sizeof address;
  if (::getsockname(socket.descriptor(), reinterpret_cast<sockaddr*>(&address), &length) != 0) return 0;
  return ntohs(address.ss_family == AF_INET6 ? reinterpret_cast<const sockaddr_in6&>(address).sin6_port
                                             : reinterpret_cast<const sockaddr_in&>(address).sin_port);
}

/// A connection, or a closed socket and in `complaint` the reason.
inline tcp_socket tcp_connect(const std::string& host, int port, double seconds, std::string& complaint) {
  const std::string place = host + " port " + std::to_string(port);
  tcp_addresses found;
  try {
    found = resolve(host, port);
  } catch (const transport_error& unknown) {  // a name may become known while the machines of a job start
    complaint = unknown.message();
    return {};
  }
  for (const addrinfo* one = found.get(); one != nullptr; one = one->ai_next) {
    tcp_socket socket(::socket(one->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    int wrong = socket.open() ? 0 : errno;
    if (socket.open() && ::connect(socket.descriptor(), one->ai_addr, one->ai_addrlen) != 0) {
      wrong = errno;
      if (wrong == EINPROGRESS) {
        socklen_t length = sizeof wrong;
        if (!socket.wait(POLLOUT, seconds)) wrong = ETIMEDOUT;
        else if (::getsockopt(socket.descriptor(), SOL_SOCKET, SO_ERROR, &wrong, &length) != 0) wrong = errno;
      }
    }
    if (wrong == 0) return socket;
    complaint = place + ": " + std::strerror(wrong);
  }
  return {};
}

}  // namespace shardkit::detail
