// One rank's messages: its place in every channel, and the requests of sends and receives under way.
#pragma once

#include <shardkit/backends/detail/thread_meeting.hpp>
#include <shardkit/comm/request.hpp>

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace shardkit::detail {

class thread_messages;

/// A send or receive. Lives in the pool of its rank, which it keeps alive.
class thread_request final : public pending_call {
 public:
  bool test() override;
  void wait() override;
  double deadline() const noexcept override;
  [[noreturn]] void expire() override;
  void release() noexcept override;

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
      : meeting_(meeting),
        sent_(static_cast<std::size_t>(meeting_.room().size)),
        received_(static_cast<std::size_t>(meeting_.room().size)) {}

  thread_meeting& meeting() noexcept { return meeting_; }

  /// Sends or receives and waits. A message to oneself that would wait for ever is refused.
  template <class Call>
  void perform(const Call& call, std::shared_ptr<void> owner) {
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
  thread_request* prepare(const send_call& call, std::shared_ptr<void> owner) {
    // The buffer is only read; one field serves both directions.
    return prepare(true, call.peer, {const_cast<void*>(call.in), call.count, call.type, call.site}, std::move(owner));
  }
  thread_request* prepare(const recv_call& call, std::shared_ptr<void> owner) {
    return prepare(false, call.peer, {call.out, call.count, call.type, call.site}, std::move(owner));
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

  thread_request* prepare(bool sends, int peer, const message_side& mine, std::shared_ptr<void> owner) {
    meeting_.require_alive();
    thread_room& room = meeting_.room();
    thread_request* message = take();
    auto& number = (sends ? sent_ : received_)[static_cast<std::size_t>(peer)];
    thread_channel& channel = sends ? room.channel(meeting_.rank(), peer) : room.channel(peer, meeting_.rank());
    message->end_ = message_end(channel, number++, sends, mine);
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
    using outcome = message_end::outcome;
    outcome now = outcome::waiting;
    if (message.phase_ == phase::offered) {
      now = message.end_.poll();
    } else if (message.phase_ == phase::unoffered && message.end_.can_offer()) {
      message.phase_ = phase::offered;
      now = message.end_.offer();
    }
    if (now == outcome::complete) message.phase_ = phase::complete;
    if (now == outcome::mismatch) throw_mismatch(message);
  }
  void show_progress() noexcept {
    using source = thread_meeting::progress_source;
    if (under_way_.empty()) meeting_.set_progress(source::messages, nullptr, nullptr);
    else meeting_.set_progress(source::messages, [](void* self) { static_cast<thread_messages*>(self)->advance(); }, this);
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

  [[noreturn]] void throw_mismatch(thread_request& message) {
    const auto side = [&](bool sends, int rank, const message_side& what) {
      return "rank " + std::to_string(meeting_.room().launch_rank(rank)) + (sends ? " sends " : " receives ") +
             elements(what.count, what.type) + describe_site(what.site);
    };
    message.phase_ = phase::mismatched;
    meeting_.leave_mismatched_call("message sizes differ: " + side(message.sends_, meeting_.rank(), message.end_.mine()) +
                                   ", " + side(!message.sends_, message.peer_, message.end_.other()));
  }

  thread_meeting& meeting_;
  std::vector<std::uint64_t> sent_, received_;  // messages so far, by peer
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
