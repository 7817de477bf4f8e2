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
  return {const_cast<void*>(call.in), call.count, call.type, call.site};
}
inline message_side side_of(const recv_call& call) noexcept { return {call.out, call.count, call.type, call.site}; }

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
  /// it goes away with a message sent and comes with one received. Where this rank does nothing but look for the other
  /// side (`looks`), what travels in a slot or a box needs no offer.
  outcome offer(unsigned char*& spare, bool looks) noexcept {
    using slot = message_slot;
    const std::size_t bytes = mine_.bytes();
    std::uint64_t expected = slot::state_of(turn_, slot::empty);
    const bool alone = slot_->state.load(memory_order_acquire) == expected;
    if (!sends_ && looks && alone && bytes <= thread_limits::box) return outcome::early;
    if (alone) {
      slot_->claimed.store(0, memory_order_relaxed);
      slot_->finished.store(0, memory_order_relaxed);
    }
    (sends_ ? slot_->sender : slot_->receiver) = mine_;
    if (sends_ && (bytes <= slot::small_bytes || (spare != nullptr && bytes <= thread_limits::box))) {
      if (alone) {
        const bool is_small = bytes <= slot::small_bytes;
        copy_small(is_small ? slot_->small : spare, mine_.data, bytes);
        slot_->count = mine_.count;
        slot_->type = mine_.type;
        if (!is_small) slot_->box = spare;
        if (exchange(expected, is_small ? slot::sent_here : slot::sent_boxed)) {
          if (!is_small) spare = nullptr;
          return outcome::complete;
        }
      }
    } else if (exchange(expected, sends_ ? slot::sent : slot::awaited)) {
      return outcome::waiting;
    }
    return take(spare);
  }

  /// Looks whether the other side has copied meanwhile, and helps it.
  outcome poll() noexcept {
    const std::uint64_t now = slot_->state.load(memory_order_acquire);
    if (now == message_slot::state_of(turn_, message_slot::copied)) {
      next_turn();
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

  // The other side was first: its offer is taken, unless it is withdrawn at this moment.
  outcome take(unsigned char*& spare) noexcept {
    using slot = message_slot;
    const std::uint64_t now = slot_->state.load(memory_order_acquire);
    const bool is_small = now == slot::state_of(turn_, slot::sent_here);
    if (!sends_ && (is_small || now == slot::state_of(turn_, slot::sent_boxed))) {
      if (mine_.count != slot_->count || mine_.type != slot_->type) return outcome::mismatch;
      copy_small(mine_.data, is_small ? slot_->small : slot_->box, mine_.bytes());
      if (!is_small) spare = slot_->box;
      next_turn();
      return outcome::complete;
    }
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
    const bool streams = goes_past_caches(2 * bytes);
    for (std::size_t at; (at = piece * slot_->claimed.fetch_add(1, memory_order_relaxed)) < bytes;) {
      copy_bytes(static_cast<char*>(slot_->receiver.data) + at, static_cast<const char*>(slot_->sender.data) + at,
                 bytes - at < piece ? bytes - at : piece, streams);
      slot_->finished.fetch_add(1, memory_order_release);
    }
  }

  void next_turn() noexcept {
    slot_->state.store(message_slot::state_of(turn_ + 1, message_slot::empty), memory_order_release);
  }

  message_slot* slot_ = nullptr;
  std::uint64_t turn_ = 0;
  bool sends_ = true;
  message_side mine_;
};

}  // namespace shardkit::detail
