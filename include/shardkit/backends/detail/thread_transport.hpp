// How messages travel between the host buffers of thread ranks: one rank's place in every channel, and the boxes that
// are its turn to fill.
#pragma once

#include <shardkit/backends/detail/thread_meeting.hpp>

#include <cstddef>
#include <cstdint>

namespace shardkit::detail {

/// A transport of thread_messages: `at_once` does what needs no second look, `number` gives any other message its place
/// among those to or from its peer, and `next_step` takes it as far as it goes without waiting.
class thread_transport {
 public:
  using end = message_end;

  explicit thread_transport(thread_meeting& meeting)
      : meeting_(meeting), peers_(static_cast<std::size_t>(meeting_.room().size)) {}

  end number(const recv_call& call) {
    with_peer& state = with(call.peer);
    state.read.vacate();
    return end(meeting_.room().channel(call.peer, meeting_.rank()), state.received++, false, side_of(call));
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
    prefetch(channel.slot(state.sent + 1));
    return end(channel, state.sent++, true, mine);
  }

  /// Sends what fits into a slot that is free, or into a box that is this rank's to fill, or waits for a message that
  /// its sender leaves, and takes it. False where the sides have to meet, or differ: the message is then numbered.
  bool at_once(const send_call& call) {
    const message_side mine = side_of(call);
    with_peer& state = with(call.peer);
    unsigned char* box = nullptr;
    if (mine.bytes() > message_slot::small_bytes) {
      if (mine.bytes() > thread_limits::box || state.spare == 0) return false;
      box = state.boxes[state.spare - 1];
    }
    thread_channel& channel = meeting_.room().channel(meeting_.rank(), call.peer);
    if (!channel.slot(state.sent).leave(thread_channel::turn(state.sent), mine, box)) return false;
    if (box != nullptr) --state.spare;
    prefetch(channel.slot(++state.sent));
    return true;
  }
  bool at_once(const recv_call& call) {
    const message_side mine = side_of(call);
    if (mine.bytes() > thread_limits::box) return false;
    with_peer& state = with(call.peer);
    state.read.vacate();
    message_slot& slot = meeting_.room().channel(call.peer, meeting_.rank()).slot(state.received);
    const std::uint64_t turn = thread_channel::turn(state.received);
    meeting_.wait(call, call.peer, [&] { return slot.has_come(turn); });
    unsigned char* box = nullptr;
    if (!slot.is_left(turn) || !slot.take(mine, box)) return false;
    ++state.received;
    state.read = {&slot, turn};
    if (box != nullptr) state.boxes[state.spare++] = box;
    return true;
  }

  /// `waited_for`: by a sender that may as well fill a box.
  end::outcome next_step(end& message, bool& offered, int peer, bool waited_for) {
    if (offered) return message.poll();
    if (!message.can_offer()) return end::outcome::early;
    with_peer& state = with(peer);
    unsigned char* box = message.sends() && waited_for && state.spare != 0 ? state.boxes[state.spare - 1] : nullptr;
    const bool had = box != nullptr;
    const end::outcome now = message.offer(box);
    if (had && box == nullptr) --state.spare;
    if (!had && box != nullptr) state.boxes[state.spare++] = box;
    offered = now == end::outcome::waiting;
    return now;
  }

 private:
  // A slot whose message was taken at once, given back when the next is received. The sender has others meanwhile; and
  // a rank that answers need not wait for the slot's line to come back, which had to come before its answer can be
  // seen.
  struct taken_slot {
    message_slot* slot = nullptr;
    std::uint64_t turn = 0;

    void vacate() noexcept {
      if (slot != nullptr) slot->vacate(turn);
      slot = nullptr;
    }
  };
  // What this rank has with another: messages so far, and boxes that are its turn to fill, of two at most.
  struct with_peer {
    std::uint64_t sent = 0, received = 0;
    unsigned char* boxes[2] = {};
    int spare = 0;
    bool made = false;
    taken_slot read;
  };
  // By the time of the next message its slot is at hand.
  static void prefetch(const message_slot& slot) noexcept { __builtin_prefetch(&slot, 1); }
  with_peer& with(int peer) noexcept { return peers_[static_cast<std::size_t>(peer)]; }

  thread_meeting& meeting_;
  list<with_peer> peers_;
};

}  // namespace shardkit::detail
