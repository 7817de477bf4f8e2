// What a thread rank shows its peers of its device: the events that order their streams, and the messages that it
// offers. All of it is made in advance and lives as long as the room.
#pragma once

#include <shardkit/backends/detail/thread_channel.hpp>
#include <shardkit/core/detail/shared.hpp>
#include <shardkit/cuda/device.hpp>
#include <shardkit/cuda/event.hpp>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace shardkit::detail {

/// Where a rank offers message number n to a peer, for every n that shares the place.
struct cuda_message_slot {
  enum phase : std::uint64_t {
    empty,
    offered,  ///< the receiver may copy
    taking,   ///< the receiver enqueues its copy
    taken,    ///< the copy is enqueued, and the receiver's event marks its end
    given_up  ///< the offer was withdrawn, or does not fit; the launch has failed
  };
  static constexpr std::uint64_t state_of(std::uint64_t turn, phase now) noexcept { return turn << 3 | now; }

  std::atomic<std::uint64_t> state{0};
  message_side sender;
  std::uint64_t capture = 0;  ///< of the sender's stream
  cuda_event ready;           ///< the sender's stream has come to the message
};

/// Made by its rank, on its device.
struct cuda_thread_device final : shared_object {
  /// Messages that may be on offer to one peer at once; a further send waits.
  static constexpr std::size_t depth = 4;

  explicit cuda_thread_device(int ranks)
      : number(current_cuda_device()),
        outgoing(static_cast<std::size_t>(ranks) * depth),
        received(static_cast<std::size_t>(ranks) * depth) {}

  static std::size_t place(int peer, std::uint64_t message) noexcept {
    return static_cast<std::size_t>(peer) * depth + message % depth;
  }

  const int number;
  cuda_event ready;                         ///< this rank's buffers may be used for the call that it publishes
  cuda_event done;                          ///< this rank's stream uses the peers' buffers no more
  std::atomic<std::uint64_t> last_done{0};  ///< the last call for which `done` was recorded
  std::vector<cuda_message_slot> outgoing;  ///< by place(to, message)
  std::vector<cuda_event> received;         ///< by place(from, message): the copy has ended
};

}  // namespace shardkit::detail
