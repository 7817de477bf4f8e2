// Where a rendezvous needs a token. Both sides ask, so that no rank waits for one that has refused.
#pragma once

#include <shardkit/backends/detail/tcp_socket.hpp>
#include <shardkit/backends/tcp_rendezvous.hpp>

#include <string>

namespace shardkit::detail {

/// Throws usage_error where the token is empty and other machines reach `address`, a name or an address: anybody could
/// come in. A name that is not known yet says nothing.
inline void require_token(const tcp_rendezvous& where, const std::string& address) {
  if (!where.token.empty()) return;
  tcp_addresses found;
  try {
    found = resolve(address, where.port);
  } catch (const transport_error&) {
    return;
  }
  for (const addrinfo* one = found.get(); one != nullptr; one = one->ai_next)
    if (!is_loopback(*one->ai_addr))
      throw usage_error("TCP rendezvous: the token is empty, and '" + address +
                        "' is no loopback address: any process that reaches it could take part; give all ranks the "
                        "same secret token (with a launcher: SHARDKIT_JOB_TOKEN)");
}

}  // namespace shardkit::detail
