// How messages travel between the host buffers of thread ranks: one rank's place in every channel, and the boxes that
// are its turn to fill.
#pragma once

#include <shardkit/backends/detail/thread_meeting.hpp>

#include <cstddef>
#include <cstdint>

namespace shardkit::detail {

/// A transport of thread_messages: `number` gives a message its place among those to or from its peer, `next_step`
/// takes it as far as it goes without waiting.
class thread_transport {
 public:
  using end = message_end;

  explicit thread_transport(thread_meeting& meeting)
      : meeting_(meeting), peers_(static_cast<std::size_t>(meeting_.room().size)) {}

  end number(const recv_call& call) {
    return end(meeting_.room().channel(call.peer, meeting_.rank()), with(call.peer).received++, false, side_of(call));
  }
  end number(const send_call& call) {
    thread_room& room = meeting_.room();
    with_peer& state = with(call.peer);
    thread_channel& channel = room.channel(meeting_.rank(), call.peer);
    const message_side mine = side_of(call);
    const std::size_t bytes = mine.bytes();
    if (!state.made && call.peer != meeting_.rank() && bytes > message_slot::small_bytes &&
        bytes <= thread_limits::box) {
      state.boxes[state.spare] = room.make_message_box(meeting_.rank(), call.peer);
      ++state.spare;
      state.made = true;
    }
    // By the time of the next message its slot is at hand.
    __builtin_prefetch(&channel.slot(state.sent + 1), 1);
    return end(channel, state.sent++, true, mine);
  }

  end::outcome next_step(end& message, bool& offered, int peer, bool looks) {
    if (offered) return message.poll();
    if (!message.can_offer()) return end::outcome::early;
    with_peer& state = with(peer);
    unsigned char* box = message.sends() && looks && state.spare != 0 ? state.boxes[state.spare - 1] : nullptr;
    const bool had = box != nullptr;
    const end::outcome now = message.offer(box, looks);
    if (had && box == nullptr) --state.spare;
    if (!had && box != nullptr) state.boxes[state.spare++] = box;
    offered = now == end::outcome::waiting;
    return now;
  }

 private:
  // What this rank has with another: messages so far, and boxes that are its turn to fill, of two at most.
  struct with_peer {
    std::uint64_t sent = 0, received = 0;
    unsigned char* boxes[2] = {};
    int spare = 0;
    bool made = false;
  };
  with_peer& with(int peer) noexcept { return peers_[static_cast<std::size_t>(peer)]; }

  thread_meeting& meeting_;
  list<with_peer> peers_;
};

}  // namespace shardkit::detail
