// Messages from one thread rank to another: a ring of slots in which sender and receiver meet. A small message travels
// inside the slot; one of medium size whose sender waits, in a box that it has to spare and that the receiver keeps for
// its own next message the other way. Else whoever comes second copies straight between the buffers, and the other side
// helps with large messages if it waits: two cores copy faster than one.
#pragma once

#include <shardkit/backends/detail/thread_copies.hpp>
#include <shardkit/comm/calls.hpp>
#include <shardkit/core/call_site.hpp>
#include <shardkit/core/detail/atomic.hpp>
#include <shardkit/core/dtype.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>

#include <sched.h>

namespace shardkit::detail {

/// One side of a message.
struct message_side {
  void* data = nullptr;  ///< the sender's is only read
  std::size_t count = 0;
  dtype type = dtype::u8;
  call_site site;

  std::size_t bytes() const noexcept { return count * size_of(type); }
  bool matches(const message_side& other) const noexcept { return count == other.count && type == other.type; }
};

// The buffer of a send is only read; one field serves both directions.
inline message_side side_of(const send_call& call) noexcept {
  return {const_cast<void*>(call.in), call.count, call.type, call.site.by_words()};
}
inline message_side side_of(const recv_call& call) noexcept {
  return {call.out, call.count, call.type, call.site.by_words()};
}

/// A place where message number n of a channel is handed over, for every n that shares it.
struct alignas(64) message_slot {
  enum phase : std::uint64_t {
    empty,      ///< neither side has come
    sent,       ///< the sender's buffer is on offer
    sent_here,  ///< the message lies in `small`; the sender is gone
    awaited,    ///< the receiver's buffer is on offer
    copying,    ///< the later side has taken the offer and copies; the earlier one may help
    copied,     ///< the side that waits may go on
    given_up,   ///< an offer was withdrawn; the communicator has failed
    sent_boxed  ///< the message lies in `box`, which is now the receiver's; the sender is gone
  };
  static constexpr std::size_t small_bytes = 88;

  /// The state of the slot on its `turn`-th use.
  static constexpr std::uint64_t state_of(std::uint64_t turn, phase now) noexcept { return turn << 3 | now; }

  /// Leaves a message in `small`, or in `in_box` where that is not null, for the receiver to take when it comes. False
  /// where the slot is not free, or the receiver has come meanwhile.
  bool leave(std::uint64_t turn, const message_side& mine, unsigned char* in_box) noexcept {
    std::uint64_t expected = state_of(turn, empty);
    if (state.load(memory_order_acquire) != expected) return false;
    copy_small(in_box == nullptr ? small : in_box, mine.data, mine.bytes());
    count = mine.count;
    type = mine.type;
    box = in_box;
    sender.count = mine.count;
    sender.type = mine.type;
    sender.site = mine.site.by_words();
    return state.compare_exchange_strong(expected, state_of(turn, in_box == nullptr ? sent_here : sent_boxed),
                                         memory_order_acq_rel, memory_order_acquire);
  }
  /// Whether the sender, or an offer of either side, has come.
  bool has_come(std::uint64_t turn) const noexcept { return state.load(memory_order_acquire) > state_of(turn, empty); }
  /// Whether the sender is gone and has left its message.
  bool is_left(std::uint64_t turn) const noexcept {
    const std::uint64_t now = state.load(memory_order_acquire);
    return now == state_of(turn, sent_here) || now == state_of(turn, sent_boxed);
  }
  /// Takes what was left, and its box, if it is what the receiver expects. The slot is the sender's again when the
  /// receiver vacates it. Needs no ownership of the slot: to ask for that takes as long as the message itself.
  bool take(const message_side& mine, unsigned char*& spare) const noexcept {
    if (mine.count != count || mine.type != type) return false;
    copy_small(mine.data, box == nullptr ? small : box, mine.bytes());
    if (box != nullptr) spare = box;
    return true;
  }
  void vacate(std::uint64_t turn) noexcept { state.store(state_of(turn + 1, empty), memory_order_release); }

  // What a receiver reads of a short message lies in one line.
  atomic<std::uint64_t> state{0};
  std::size_t count = 0;  ///< of a message in `small` or `box`
  dtype type = dtype::u8;
  unsigned char* box = nullptr;
  alignas(8) unsigned char small[small_bytes];
  alignas(64) message_side sender;
  alignas(64) message_side receiver;
  // Pieces of a message that either side may copy.
  alignas(64) atomic<std::size_t> claimed{0};
  atomic<std::size_t> finished{0};
};

/// All messages from one rank to another, in order.
struct thread_channel {
  /// Messages that may be under way at once; a further send waits.
  static constexpr std::uint64_t depth = 16;

  message_slot& slot(std::uint64_t message) noexcept { return slots[message % depth]; }
  static constexpr std::uint64_t turn(std::uint64_t message) noexcept { return message / depth; }

  message_slot slots[depth];
};

/// One rank's end of message number `message`: offered, taken or complete.
class message_end {
 public:
  enum class outcome {
    early,  ///< the other side has not come, and nothing is on offer
    waiting,
    complete,
    mismatch
  };

  /// Of no message.
  message_end() noexcept = default;
  message_end(thread_channel& channel, std::uint64_t message, bool sends, const message_side& mine) noexcept
      : slot_(&channel.slot(message)), turn_(thread_channel::turn(message)), sends_(sends), mine_(mine) {}

  /// Whether the slot's earlier message is out of the way, so that this one can be offered.
  bool can_offer() const noexcept { return slot_->state.load(memory_order_acquire) >> 3 == turn_; }

  /// Offers this side, or takes the other's offer and copies. `spare` is a box for a message of medium size, or null;
  /// it goes away with a message sent and comes with one received.
  outcome offer(unsigned char*& spare) noexcept {
    using slot = message_slot;
    const std::size_t bytes = mine_.bytes();
    if (sends_ && (bytes <= slot::small_bytes || (spare != nullptr && bytes <= thread_limits::box))) {
      unsigned char* const box = bytes <= slot::small_bytes ? nullptr : spare;
      if (!slot_->leave(turn_, mine_, box)) return meet(spare);
      if (box != nullptr) spare = nullptr;
      return outcome::complete;
    }
    std::uint64_t expected = slot::state_of(turn_, slot::empty);
    if (slot_->state.load(memory_order_acquire) == expected) {
      slot_->claimed.store(0, memory_order_relaxed);
      slot_->finished.store(0, memory_order_relaxed);
      show();
      if (exchange(expected, sends_ ? slot::sent : slot::awaited)) return outcome::waiting;
    }
    return meet(spare);
  }

  /// Looks whether the other side has copied meanwhile, and helps it.
  outcome poll() noexcept {
    const std::uint64_t now = slot_->state.load(memory_order_acquire);
    if (now == message_slot::state_of(turn_, message_slot::copied)) {
      slot_->vacate(turn_);
      return outcome::complete;
    }
    if (now == message_slot::state_of(turn_, message_slot::copying) && slot_->sender.matches(slot_->receiver))
      copy_pieces();
    return outcome::waiting;
  }

  /// Takes back an offer, so that nobody touches the buffer after the return. Waits for a copy in progress, which
  /// ends by itself. Only after the launch has failed.
  template <class Relax>
  void withdraw(Relax relax) noexcept {
    std::uint64_t expected = message_slot::state_of(turn_, sends_ ? message_slot::sent : message_slot::awaited);
    if (exchange(expected, message_slot::given_up)) return;
    while (slot_->state.load(memory_order_acquire) == message_slot::state_of(turn_, message_slot::copying)) relax();
  }

  bool sends() const noexcept { return sends_; }
  const message_side& mine() const noexcept { return mine_; }
  /// The other side, where `offer` reported a mismatch.
  const message_side& other() const noexcept { return sends_ ? slot_->receiver : slot_->sender; }

 private:
  bool exchange(std::uint64_t& expected, message_slot::phase next) noexcept {
    return slot_->state.compare_exchange_strong(expected, message_slot::state_of(turn_, next), memory_order_acq_rel,
                                                memory_order_acquire);
  }

  void show() noexcept { (sends_ ? slot_->sender : slot_->receiver) = mine_; }

  // The other side was first: its offer is taken, unless it is withdrawn at this moment.
  outcome meet(unsigned char*& spare) noexcept {
    using slot = message_slot;
    if (!sends_ && slot_->is_left(turn_)) {
      if (!slot_->take(mine_, spare)) return outcome::mismatch;
      slot_->vacate(turn_);
      return outcome::complete;
    }
    show();
    std::uint64_t expected = slot::state_of(turn_, sends_ ? slot::awaited : slot::sent);
    if (!exchange(expected, slot::copying)) return outcome::waiting;  // withdrawn: the failure will end the wait
    if (!slot_->sender.matches(slot_->receiver)) {
      slot_->state.store(slot::state_of(turn_, slot::given_up), memory_order_release);
      return outcome::mismatch;
    }
    copy_pieces();
    // The other side is copying a last piece, and nothing can block it there.
    while (slot_->finished.load(memory_order_acquire) != pieces()) sched_yield();
    slot_->state.store(slot::state_of(turn_, slot::copied), memory_order_release);
    return outcome::complete;
  }

  std::size_t piece_bytes() const noexcept {
    const std::size_t share = mine_.bytes() / 16;
    return share < thread_limits::piece ? thread_limits::piece : share;
  }
  std::size_t pieces() const noexcept { return (mine_.bytes() + piece_bytes() - 1) / piece_bytes(); }
  // Copies pieces until none is left that nobody has begun.
  void copy_pieces() noexcept {
    const std::size_t bytes = mine_.bytes(), piece = piece_bytes();
    // Measured: what just fills the caches arrives a tenth sooner past them, other than in collectives.
    const bool streams = goes_past_caches(2 * bytes + 1);
    for (std::size_t at; (at = piece * slot_->claimed.fetch_add(1, memory_order_relaxed)) < bytes;) {
      copy_bytes(static_cast<char*>(slot_->receiver.data) + at, static_cast<const char*>(slot_->sender.data) + at,
                 bytes - at < piece ? bytes - at : piece, streams);
      slot_->finished.fetch_add(1, memory_order_release);
    }
  }

  message_slot* slot_ = nullptr;
  std::uint64_t turn_ = 0;
  bool sends_ = true;
  message_side mine_;
};

}  // namespace shardkit::detail
