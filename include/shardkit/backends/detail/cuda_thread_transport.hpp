// How messages travel between the CUDA buffers of thread ranks. The sender offers its buffer with an event that says
// when it may be read; the receiver's stream waits for it, copies, and marks the end by an event, for which the
// sender's stream waits before the message is complete on it.
#pragma once

#include <shardkit/backends/detail/cuda_thread_streams.hpp>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace shardkit::detail {

/// One rank's end of message number `message` between two ranks.
class cuda_message_end {
 public:
  using outcome = message_end::outcome;

  /// Of no message.
  cuda_message_end() noexcept = default;
  cuda_message_end(thread_meeting& meeting, cuda_thread_streams& streams, int peer, std::uint64_t message, bool sends,
                   const message_side& mine, at<cuda_space> where) noexcept
      : meeting_(&meeting),
        streams_(&streams),
        peer_(peer),
        message_(message),
        sends_(sends),
        mine_(mine),
        where_(where) {}

  bool sends() const noexcept { return sends_; }
  const message_side& mine() const noexcept { return mine_; }
  /// The other side, where the sizes differ.
  const message_side& other() const noexcept { return slot().sender; }

  /// Goes on as far as possible without waiting.
  outcome step(bool offered) {
    const std::uint64_t now = slot().state.load(std::memory_order_acquire);
    if (!sends_) return now == state_of(cuda_message_slot::offered) ? receive() : outcome::early;
    if (!offered) return now == state_of(cuda_message_slot::empty) ? offer() : outcome::early;
    if (now != state_of(cuda_message_slot::taken)) return outcome::waiting;
    streams_->on_device(*meeting_, [&, this] {
      follow_reader();
      streams_->end(where_, capture_);
    });
    slot().state.store(cuda_message_slot::state_of(turn() + 1, cuda_message_slot::empty), std::memory_order_release);
    return outcome::complete;
  }

  /// Takes back an offer, so that nothing more is enqueued on the buffer after the return, and this rank's stream goes
  /// on after what was. Only after the launch has failed.
  template <class Relax>
  void withdraw(Relax relax) noexcept {
    std::uint64_t expected = state_of(cuda_message_slot::offered);
    if (slot().state.compare_exchange_strong(expected, state_of(cuda_message_slot::given_up))) return;
    while (slot().state.load(std::memory_order_acquire) == state_of(cuda_message_slot::taking)) relax();
    if (slot().state.load(std::memory_order_acquire) != state_of(cuda_message_slot::taken)) return;
    ignoring_errors([&, this] {
      const cuda_device_guard device(streams_->own().number);
      follow_reader();
    });
  }

 private:
  cuda_message_slot& slot() const noexcept {
    if (sends_) return streams_->own().outgoing[cuda_thread_device::place(peer_, message_)];
    return streams_->peer(peer_).outgoing[cuda_thread_device::place(meeting_->rank(), message_)];
  }
  std::uint64_t turn() const noexcept { return message_ / cuda_thread_device::depth; }
  std::uint64_t state_of(cuda_message_slot::phase now) const noexcept {
    return cuda_message_slot::state_of(turn(), now);
  }

  void begin() {
    capture_ = streams_->capture_of(where_);
    streams_->begin(where_, capture_);
  }

  outcome offer() {
    streams_->on_device(*meeting_, [&, this] {
      begin();
      slot().sender = mine_;
      slot().capture = capture_;
      if (mine_.count != 0) slot().ready.record(where_);
    });
    slot().state.store(state_of(cuda_message_slot::offered), std::memory_order_release);
    return outcome::waiting;
  }

  outcome receive() {
    cuda_message_slot& from = slot();
    std::uint64_t expected = state_of(cuda_message_slot::offered);
    if (!from.state.compare_exchange_strong(expected, state_of(cuda_message_slot::taking)))
      return outcome::early;  // withdrawn: the failure will end the wait
    if (!mine_.matches(from.sender)) {
      from.state.store(state_of(cuda_message_slot::given_up), std::memory_order_release);
      return outcome::mismatch;
    }
    const cuda_event& end = streams_->own().received[cuda_thread_device::place(peer_, message_)];
    bool copies = false;
    const auto tell = [&, this]() noexcept {
      from.state.store(state_of(copies ? cuda_message_slot::taken : cuda_message_slot::given_up),
                       std::memory_order_release);
    };
    streams_->on_device(
        *meeting_,
        [&, this] {
          begin();
          streams_->require_one_capture(*meeting_, capture_, peer_, from.capture);
          copies = true;
          if (mine_.count != 0) {
            from.ready.order_before(where_);
            cuda_space::copy(mine_.data, from.sender.data, mine_.bytes(), where_);
            end.record(where_);
          }
          streams_->end(where_, capture_);
        },
        [&, this]() noexcept {
          ignoring_errors([&, this] {
            if (copies && mine_.count != 0) end.record(where_);
          });
          tell();
        });
    tell();
    return outcome::complete;
  }

  void follow_reader() const {
    const std::size_t place = cuda_thread_device::place(meeting_->rank(), message_);
    const cuda_event& read = streams_->peer(peer_).received[place];
    if (mine_.count != 0) read.order_before(where_);
  }

  thread_meeting* meeting_ = nullptr;
  cuda_thread_streams* streams_ = nullptr;
  int peer_ = 0;
  std::uint64_t message_ = 0;
  bool sends_ = true;
  message_side mine_;
  at<cuda_space> where_;
  std::uint64_t capture_ = 0;
};

/// A transport of thread_messages.
class cuda_thread_transport {
 public:
  using end = cuda_message_end;

  cuda_thread_transport(thread_meeting& meeting, const std::shared_ptr<cuda_thread_streams>& streams)
      : meeting_(meeting),
        streams_(streams),
        sent_(static_cast<std::size_t>(meeting.room().size)),
        received_(sent_.size()) {}

  end number(const send_call& call) { return number(call, true, sent_); }
  end number(const recv_call& call) { return number(call, false, received_); }

  /// Both sides always meet, since each has a stream to be told.
  template <class Call>
  static constexpr bool at_once(const Call&) noexcept {
    return false;
  }
  static end::outcome next_step(end& message, bool& offered, int, bool) {
    const end::outcome now = message.step(offered);
    offered = now == end::outcome::waiting;
    return now;
  }

 private:
  template <class Call>
  end number(const Call& call, bool sends, std::vector<std::uint64_t>& messages) {
    return end(meeting_, *streams_, call.peer, messages[static_cast<std::size_t>(call.peer)]++, sends, side_of(call),
               where_of(call));
  }

  thread_meeting& meeting_;
  std::shared_ptr<cuda_thread_streams> streams_;
  std::vector<std::uint64_t> sent_, received_;
};

}  // namespace shardkit::detail
