// Where and as whom processes meet over TCP: rank 0 listens, the others connect to it. Used by the TCP backend and by
// tcp_bootstrap.
#pragma once

#include <shardkit/core/error.hpp>

#include <cstddef>
#include <functional>
#include <string>

namespace shardkit {

/// Everything but `listen` and `on_listening` is the same on every rank.
///
/// The token tells the processes of one launch from all others; nothing of a connection is used before its token has
/// matched. It travels unencrypted, and so does everything else: on a network that you do not trust use a tunnel.
struct tcp_rendezvous {
  std::string host = "127.0.0.1";    ///< where the others find rank 0: a name or an address
  int port = 0;                      ///< the first port to try; 0 only with on_listening, which has to tell the others
  int ports = 1;                     ///< ports port, port + 1, ... of which rank 0 takes the first that is free
  std::string listen = "127.0.0.1";  ///< rank 0 listens on this address and on no other
  /// At most 128 bytes; a secret where strangers can reach the port. Empty only where rank 0 listens on a loopback
  /// address.
  std::string token;
  std::function<void(int port)> on_listening = {};  ///< told on rank 0 which port it has taken

  static constexpr std::size_t longest_token = 128;  ///< bytes

  /// Throws usage_error.
  void require_valid(int rank, int size) const {
    const auto refuse = [](const std::string& why) { throw usage_error("TCP rendezvous: " + why); };
    if (size < 1) refuse("the size is " + std::to_string(size) + "; it has to be at least 1");
    if (rank < 0 || rank >= size) refuse("rank " + std::to_string(rank) + " is not below " + std::to_string(size));
    if (port < 0 || ports < 1 || port + ports > 65536)
      refuse(std::to_string(ports) + " ports from " + std::to_string(port) + " are not within 1 to 65535");
    if (token.size() > longest_token)
      refuse("the token has " + std::to_string(token.size()) + " bytes; at most " + std::to_string(longest_token));
    if (port == 0 && size > 1 && (rank != 0 || !on_listening))
      refuse(
          "no port is given; name one (with a launcher: SHARDKIT_PORT), or let rank 0 choose and tell the others by "
          "on_listening");
    if (host.empty() && rank != 0) refuse("the host of rank 0 is not known; name it (with a launcher: SHARDKIT_HOST)");
  }
};

}  // namespace shardkit
