// The other ranks' side of the rendezvous: find rank 0 of this launch among the ports, say hello, wait for all.
#pragma once

#include <shardkit/backends/detail/tcp_greeting.hpp>
#include <shardkit/backends/detail/tcp_socket.hpp>
#include <shardkit/backends/detail/tcp_token.hpp>
#include <shardkit/backends/tcp_rendezvous.hpp>

#include <algorithm>
#include <string>

namespace shardkit::detail {

/// A greeting from rank 0 of this launch; false, with the reason, where something else or nothing came.
inline bool read_greeting(const tcp_socket& socket, const std::string& token, double seconds, greeting& into,
                          std::string& complaint) {
  greeting::wire wire{};
  switch (socket.receive_all(wire.data(), wire.size(), seconds)) {
    case tcp_socket::outcome::closed:
      complaint = "it closed the connection: another job's token, or not shardkit";
      return false;
    case tcp_socket::outcome::expired: complaint = "it did not answer"; return false;
    case tcp_socket::outcome::done: break;
  }
  switch (decode(wire, token, into)) {
    case greeting_check::good: return true;
    case greeting_check::other_version:
      throw usage_error("rank 0 speaks version " + std::to_string(into.version) +
                        " of the protocol, this process version " + std::to_string(greeting::current_version) +
                        "; build all ranks with the same shardkit");
    default: complaint = "it is not rank 0 of this launch"; return false;
  }
}

/// A connection to rank 0, once all ranks have come. Throws timeout_error where rank 0 was not found, and what rank 0
/// has against this launch: timeout_error naming the ranks that never came, usage_error. An empty token is refused like
/// rank 0 refuses it.
inline tcp_socket tcp_join(const tcp_rendezvous& where, int rank, int size, double seconds) {
  const double end = now_seconds() + seconds;
  std::string complaint = "not tried";
  for (double pause = 0.01;; pause = std::min(0.2, pause * 1.5)) {
    require_token(where, where.host);
    for (int port = where.port; port < where.port + where.ports; ++port) {
      tcp_socket socket = tcp_connect(where.host, port, std::min(2.0, end - now_seconds()), complaint);
      if (!socket.open()) continue;
      socket.tune();
      const auto hello = encode({greeting::current_version, greeting_kind::hello, static_cast<std::uint32_t>(rank),
                                 static_cast<std::uint32_t>(size), where.token, ""});
      std::string answer = "it closed the connection";
      greeting reply;
      const bool answered =
          socket.send_all(hello.data(), hello.size(), 1) == tcp_socket::outcome::done &&
          // Where there are other ports to try, a service that says nothing does not keep us for long.
          read_greeting(socket, where.token, std::min(where.ports > 1 ? 2.0 : 10.0, end - now_seconds()), reply,
                        answer);
      // A connection to a free port of this machine can meet itself.
      if (!answered || reply.kind == greeting_kind::hello) {
        complaint = where.host + " port " + std::to_string(port) + ": " + answer;
        continue;
      }
      // Rank 0's own deadline may end a little later than ours, and its text says more.
      if (reply.kind == greeting_kind::welcome &&
          !read_greeting(socket, where.token, end - now_seconds() + std::min(2.0, seconds), reply, answer))
        throw peer_failed(0, "it did not get all ranks of the launch together: " + answer);
      if (reply.kind == greeting_kind::begin) return socket;
      if (reply.kind == greeting_kind::incomplete) throw timeout_error(reply.text);
      throw usage_error(reply.text);
    }
    if (now_seconds() + pause >= end)
      throw timeout_error("rank 0 was not found at " + where.host + " port " + std::to_string(where.port) +
                          (where.ports > 1 ? " to " + std::to_string(where.port + where.ports - 1) : "") +
                          " within the init deadline of " + std::to_string(seconds) + " s; at last: " + complaint);
    sleep_seconds(pause);
  }
}

}  // namespace shardkit::detail
