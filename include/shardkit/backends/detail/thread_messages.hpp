// One rank's messages: its place in every channel, and the requests of sends and receives under way.
#pragma once

#include <shardkit/backends/detail/thread_meeting.hpp>
#include <shardkit/comm/request.hpp>

#include <algorithm>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace shardkit::detail {

class thread_messages;

/// A send or receive. Lives in the pool of its rank, which it keeps alive.
class thread_request final : public pending_call {
 public:
  inline bool test() override;
  inline void wait() override;
  inline double deadline() const noexcept override;
  [[noreturn]] inline void expire() override;
  inline void release() noexcept override;

 private:
  friend class thread_messages;

  // A mismatched message stays as it is: the launch has failed.
  enum class phase { unoffered, offered, complete, mismatched };

  template <class Action>
  auto with_context(Action action);

  thread_messages* messages_ = nullptr;
  std::shared_ptr<void> owner_;  // of the messages
  message_end end_{no_channel(), 0, true, {}};
  int peer_ = 0;
  bool sends_ = false;
  phase phase_ = phase::complete;

  static thread_channel& no_channel() {
    static thread_channel none;
    return none;
  }
};

/// Started by one rank's calls. What is under way goes on, in the order started, in every wait of this rank.
class thread_messages {
 public:
  explicit thread_messages(thread_meeting& meeting)
      : meeting_(meeting), peers_(static_cast<std::size_t>(meeting_.room().size)) {}

  thread_meeting& meeting() noexcept { return meeting_; }

  /// Sends or receives and waits, where nothing else is under way and the peer is another rank.
  template <class Call>
  void perform(const Call& call) {
    meeting_.require_alive();
    constexpr bool sends = std::is_same<Call, send_call>::value;
    sole_message message{number(sends, call.peer, side_of(call))};
    const auto ready = [&] {
      const step_outcome now = next_step(message.end, message.offered, call.peer, true);
      if (now == step_outcome::mismatch) {
        message.offered = false;
        throw_mismatch(message.end, sends, call.peer);
      }
      return now == step_outcome::complete;
    };
    if (!ready()) meeting_.wait(call, call.peer, ready);
    message.offered = false;
  }
  /// The same with a request. A message to oneself that would wait for ever is refused.
  template <class Call>
  void perform_as_request(const Call& call, std::shared_ptr<void> owner) {
    thread_request* const message = prepare(call, std::move(owner));
    const request dropped_at_the_end(message);
    if (call.peer == meeting_.rank() && !is_complete(*message)) {
      const std::string text = std::string(Call::name) + " of " + elements(call.count, call.type) +
                               (message->sends_ ? " to" : " from") + " oneself waits for ever; use send_recv or group";
      meeting_.raise(meeting_.rank(), text);
      throw usage_error(text);
    }
    wait(*message);
  }

  /// Numbers the message and offers it if its slot is free; what is not complete is under way until it is. `owner`
  /// keeps these messages until the request is released.
  template <class Call>
  thread_request* prepare(const Call& call, std::shared_ptr<void> owner) {
    return prepare(std::is_same<Call, send_call>::value, call.peer, side_of(call), std::move(owner));
  }

  /// Goes on with everything under way as far as possible without waiting; true if this message is complete.
  bool is_complete(thread_request& message) {
    if (message.phase_ != phase::complete) meeting_.go_on();
    return message.phase_ == phase::complete;
  }
  void wait(thread_request& message) {
    const auto ready = [&] { return message.phase_ == phase::complete; };
    as_call(message, [&](const auto& call) { meeting_.wait(call, message.peer_, ready); });
  }

  [[noreturn]] void expire(thread_request& message) {
    as_call(message, [&](const auto& call) { meeting_.throw_timeout(call, message.peer_); });
    throw timeout_error("a message");
  }

  void recycle(thread_request& message) noexcept {
    const thread_meeting::holding held(meeting_);
    if (message.phase_ != phase::complete) {
      meeting_.raise(meeting_.rank(), "a request of a message was dropped before it completed", [&] {
        return std::string("a request of ") + (message.sends_ ? "send to" : "recv from") + " rank " +
               std::to_string(message.peer_) + " was dropped before it completed" +
               describe_site(message.end_.mine().site);
      });
      if (message.phase_ == phase::offered) message.end_.withdraw([] { sched_yield(); });
      under_way_.erase(std::remove(under_way_.begin(), under_way_.end(), &message), under_way_.end());
      show_progress();
    }
    free_.push_back(&message);
  }

  error_context context_of(const thread_request& message) const {
    std::string operation;
    as_call(message, [&](const auto& call) { operation = describe(call); });
    return {meeting_.rank(), meeting_.room().size, {}, std::move(operation), 0, message.end_.mine().site};
  }

 private:
  using phase = thread_request::phase;
  using step_outcome = message_end::outcome;

  thread_request* prepare(bool sends, int peer, const message_side& mine, std::shared_ptr<void> owner) {
    meeting_.require_alive();
    thread_request* message = take();
    message->end_ = number(sends, peer, mine);
    message->peer_ = peer;
    message->sends_ = sends;
    message->phase_ = phase::unoffered;
    message->messages_ = this;
    message->owner_ = std::move(owner);
    try {
      step(*message);
    } catch (...) {
      message->release();
      throw;
    }
    if (message->phase_ != phase::complete) {
      under_way_.push_back(message);
      show_progress();
    }
    return message;
  }

  void advance() {
    for (thread_request* message : under_way_) step(*message);
    const auto is_done = [](const thread_request* message) { return message->phase_ == phase::complete; };
    under_way_.erase(std::remove_if(under_way_.begin(), under_way_.end(), is_done), under_way_.end());
    show_progress();
  }
  void step(thread_request& message) {
    if (message.phase_ != phase::unoffered && message.phase_ != phase::offered) return;
    bool offered = message.phase_ == phase::offered;
    const step_outcome now = next_step(message.end_, offered, message.peer_, false);
    message.phase_ = now == step_outcome::complete ? phase::complete : offered ? phase::offered : phase::unoffered;
    if (now == step_outcome::mismatch) {
      message.phase_ = phase::mismatched;
      throw_mismatch(message.end_, message.sends_, message.peer_);
    }
  }

  // A message that its own call waits for. Taken back where the wait ends in an exception.
  struct sole_message {
    message_end end;
    bool offered = false;
    ~sole_message() {
      if (offered) end.withdraw([] { sched_yield(); });
    }
  };

  // The buffer of a send is only read; one field serves both directions.
  static message_side side_of(const send_call& call) noexcept {
    return {const_cast<void*>(call.in), call.count, call.type, call.site};
  }
  static message_side side_of(const recv_call& call) noexcept { return {call.out, call.count, call.type, call.site}; }

  // What this rank has with another: messages so far, and boxes that are its turn to fill, of two at most.
  struct with_peer {
    std::uint64_t sent = 0, received = 0;
    unsigned char* boxes[2] = {};
    int spare = 0;
    bool made = false;
  };
  with_peer& with(int peer) noexcept { return peers_[static_cast<std::size_t>(peer)]; }

  message_end number(bool sends, int peer, const message_side& mine) {
    thread_room& room = meeting_.room();
    with_peer& state = with(peer);
    thread_channel& channel = sends ? room.channel(meeting_.rank(), peer) : room.channel(peer, meeting_.rank());
    if (!sends) return message_end(channel, state.received++, false, mine);
    const std::size_t bytes = mine.bytes();
    if (!state.made && peer != meeting_.rank() && bytes > message_slot::small_bytes && bytes <= thread_limits::box) {
      state.boxes[state.spare] = room.make_message_box(meeting_.rank(), peer);
      ++state.spare;
      state.made = true;
    }
    // By the time of the next message its slot is at hand.
    __builtin_prefetch(&channel.slot(state.sent + 1), 1);
    return message_end(channel, state.sent++, true, mine);
  }

  step_outcome next_step(message_end& end, bool& offered, int peer, bool looks) {
    if (offered) return end.poll();
    if (!end.can_offer()) return step_outcome::early;
    with_peer& state = with(peer);
    unsigned char* box = end.sends() && looks && state.spare != 0 ? state.boxes[state.spare - 1] : nullptr;
    const bool had = box != nullptr;
    const step_outcome now = end.offer(box, looks);
    if (had && box == nullptr) --state.spare;
    if (!had && box != nullptr) state.boxes[state.spare++] = box;
    offered = now == step_outcome::waiting;
    return now;
  }

  void show_progress() noexcept {
    using source = thread_meeting::progress_source;
    if (under_way_.empty()) meeting_.set_progress(source::messages, nullptr, nullptr);
    else
      meeting_.set_progress(
          source::messages, [](void* self) { static_cast<thread_messages*>(self)->advance(); }, this);
  }

  template <class Use>
  static void as_call(const thread_request& message, Use use) {
    const message_side& mine = message.end_.mine();
    if (message.sends_) use(send_call{mine.data, mine.count, mine.type, message.peer_, nullptr, mine.site});
    else use(recv_call{mine.data, mine.count, mine.type, message.peer_, nullptr, mine.site});
  }

  thread_request* take() {
    if (free_.empty()) {
      pool_.push_back(std::make_unique<thread_request>());
      free_.reserve(pool_.size());
      under_way_.reserve(pool_.size());
      return pool_.back().get();
    }
    thread_request* message = free_.back();
    free_.pop_back();
    return message;
  }

  [[noreturn, gnu::cold, gnu::noinline]] void throw_mismatch(const message_end& end, bool sends, int peer) {
    const auto side = [&](bool sending, int rank, const message_side& what) {
      return "rank " + std::to_string(meeting_.room().launch_rank(rank)) + (sending ? " sends " : " receives ") +
             elements(what.count, what.type) + describe_site(what.site);
    };
    meeting_.leave_mismatched_call("message sizes differ: " + side(sends, meeting_.rank(), end.mine()) + ", " +
                                   side(!sends, peer, end.other()));
  }

  thread_meeting& meeting_;
  std::vector<with_peer> peers_;
  std::vector<std::unique_ptr<thread_request>> pool_;
  std::vector<thread_request*> free_, under_way_;
};

template <class Action>
auto thread_request::with_context(Action action) {
  const thread_meeting::holding held(messages_->meeting());
  try {
    return action();
  } catch (error& failure) {
    failure.attach(messages_->context_of(*this));
    throw;
  }
}
inline bool thread_request::test() {
  return with_context([&] {
    if (messages_->is_complete(*this)) return true;
    messages_->meeting().require_alive();
    return false;
  });
}
inline void thread_request::wait() {
  with_context([&] { messages_->wait(*this); });
}
inline double thread_request::deadline() const noexcept {
  return messages_->meeting().room().launch->limits().operation;
}
inline void thread_request::expire() {
  with_context([&] { messages_->expire(*this); });
  throw timeout_error("a message");
}
inline void thread_request::release() noexcept {
  // The last reference may be this one; the pool then goes with it, this object included.
  const std::shared_ptr<void> owner = std::move(owner_);
  messages_->recycle(*this);
}

}  // namespace shardkit::detail
