// What a rank keeps of one communicator over TCP between the link, which fills it, and the calls, which empty it.
#pragma once

#include <shardkit/backends/detail/tcp_frame.hpp>
#include <shardkit/comm/fingerprint.hpp>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace shardkit::detail {

/// What has arrived for one communicator and nobody has taken yet, by rank of the launch.
struct tcp_mailbox {
  struct letters {
    std::deque<tcp_frame> messages, collectives;
    std::map<unsigned char, std::deque<tcp_frame>> posted, exchanged;  ///< by topic
  };
  explicit tcp_mailbox(int ranks) : from(static_cast<std::size_t>(ranks)) {}

  void add(tcp_frame&& frame) {
    letters& box = from[frame.source];
    switch (frame.kind) {
      case tcp_frame_kind::message: return box.messages.push_back(std::move(frame));
      case tcp_frame_kind::collective: return box.collectives.push_back(std::move(frame));
      case tcp_frame_kind::posted: return box.posted[frame.topic].push_back(std::move(frame));
      default: return box.exchanged[frame.topic].push_back(std::move(frame));
    }
  }

  /// This rank's last call here, for the text of an error.
  std::string last_call() const {
    return calls == 0 ? "no call" : "call " + std::to_string(calls) + " " + describe_fingerprint(fingerprint);
  }

  std::vector<letters> from;
  std::uint64_t calls = 0;  ///< collectives that this rank has made here, and the last of them
  std::uint64_t fingerprint = 0;
  std::size_t closings = 0;  ///< ranks that have let go of their end
  bool closed = false;       ///< this rank has: nothing is kept any more
  bool abandoned = false;    ///< by an exception, which says more than what is left here
  std::size_t peers = 0;     ///< ranks that will let go, once it is closed
};

}  // namespace shardkit::detail
