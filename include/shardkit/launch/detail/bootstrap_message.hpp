// What a tcp_bootstrap sends once its connections are trusted: one byte of kind, four of length, a blob.
#pragma once

#include <shardkit/backends/detail/tcp_greeting.hpp>
#include <shardkit/backends/detail/tcp_socket.hpp>
#include <shardkit/comm/bootstrap.hpp>

#include <array>
#include <cstddef>
#include <cstdint>

namespace shardkit::detail {

struct bootstrap_message {
  enum class kind : unsigned char {
    go = 1,    ///< a blob, or at a barrier the sign that this rank has come or that all have
    late = 2,  ///< some ranks did not come; the blob says who
    lost = 3,  ///< the connection of a rank closed; the blob is its number in two bytes
  };

  kind what = kind::go;
  bootstrap::blob payload;

  bootstrap::blob encoded() const {
    std::array<unsigned char, 5> head{static_cast<unsigned char>(what)};
    put_u32(&head[1], static_cast<std::uint32_t>(payload.size()));
    bootstrap::blob bytes(head.begin(), head.end());
    bytes.insert(bytes.end(), payload.begin(), payload.end());
    return bytes;
  }

  /// What is no such message counts as the end of the connection.
  tcp_socket::outcome receive(const tcp_socket& from, double seconds) {
    std::array<unsigned char, 5> head{};
    const double end = now_seconds() + seconds;
    const auto result = from.receive_all(head.data(), head.size(), seconds);
    if (result != tcp_socket::outcome::done) return result;
    const std::uint32_t length = get_u32(&head[1]);
    if (head[0] < 1 || head[0] > 3 || length > bootstrap::largest_blob) return tcp_socket::outcome::closed;
    what = static_cast<kind>(head[0]);
    payload.resize(length);
    return from.receive_all(payload.data(), payload.size(), end - now_seconds());
  }

  static bootstrap::blob of_rank(int rank) { return {static_cast<char>(rank & 0xff), static_cast<char>(rank >> 8)}; }
  /// The rank that was lost; -1 where that is not what this says.
  int rank() const noexcept {
    if (what != kind::lost || payload.size() != 2) return -1;
    return static_cast<unsigned char>(payload[0]) | static_cast<unsigned char>(payload[1]) << 8;
  }
};

}  // namespace shardkit::detail
