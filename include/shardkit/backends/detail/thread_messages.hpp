// One rank's messages: the requests of sends and receives under way. `Transport` numbers them and takes each from step
// to step: thread_transport between host buffers.
#pragma once

#include <shardkit/backends/detail/thread_transport.hpp>
#include <shardkit/comm/request.hpp>

#include <cstddef>
#include <string>
#include <type_traits>
#include <utility>

namespace shardkit::detail {

template <class Transport>
class thread_messages;

/// A send or receive. Lives in the pool of its rank, which it keeps alive.
template <class Transport>
class thread_request : public pending_call {
 public:
  inline bool test() override;
  inline void wait() override;
  inline double deadline() const noexcept override;
  [[noreturn]] inline void expire() override;
  inline void release() noexcept override;

 private:
  using messages = thread_messages<Transport>;
  friend messages;

  // A mismatched message stays as it is: the launch has failed.
  enum class phase { unoffered, offered, complete, mismatched };

  template <class Action>
  auto with_context(Action action);

  messages* messages_ = nullptr;
  shared<shared_object> owner_;  // of the messages
  typename Transport::end end_;
  int peer_ = 0;
  bool sends_ = false;
  phase phase_ = phase::complete;
};

/// Started by one rank's calls. What is under way goes on, in the order started, in every wait of this rank.
template <class Transport>
class thread_messages {
 public:
  using request_type = thread_request<Transport>;

  /// `parts` is what the transport is made of beside the meeting.
  template <class... Parts>
  explicit thread_messages(thread_meeting& meeting, const Parts&... parts)
      : meeting_(meeting), transport_(meeting, parts...) {}

  thread_meeting& meeting() noexcept { return meeting_; }

  /// Sends or receives and waits, where nothing else is under way and the peer is another rank.
  template <class Call>
  void perform(const Call& call) {
    meeting_.require_alive();
    if (!transport_.at_once(call)) meet(call);
  }
  /// The same with a request. A message to oneself that would wait for ever is refused.
  template <class Call>
  void perform_as_request(const Call& call, shared<shared_object> owner) {
    request_type* const message = prepare(call, std::move(owner));
    const request dropped_at_the_end(message);
    if (call.peer == meeting_.rank() && !is_complete(*message)) {
      const std::string text = sentence() << Call::name << " of " << elements(call.count, call.type)
                                          << (message->sends_ ? " to" : " from")
                                          << " oneself waits for ever; use send_recv or group";
      meeting_.raise(meeting_.rank(), text);
      throw usage_error(text);
    }
    wait(*message);
  }

  /// Numbers the message and offers it if its slot is free; what is not complete is under way until it is. `owner`
  /// keeps these messages until the request is released.
  template <class Call>
  request_type* prepare(const Call& call, shared<shared_object> owner) {
    meeting_.require_alive();
    under_way_.reserve(pool_.size() + 1);  // however many of the pool will be under way at once
    request_type* const message = &pool_.take();
    message->end_ = transport_.number(call);
    message->peer_ = call.peer;
    message->sends_ = std::is_same<Call, send_call>::value;
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

  /// Goes on with everything under way as far as possible without waiting; true if this message is complete.
  bool is_complete(request_type& message) {
    if (message.phase_ != phase::complete) meeting_.go_on();
    return message.phase_ == phase::complete;
  }
  void wait(request_type& message) {
    const auto ready = [&] { return message.phase_ == phase::complete; };
    as_call(message, [&, this](const auto& call) { meeting_.wait(call, message.peer_, ready); });
  }

  [[noreturn]] void expire(request_type& message) {
    as_call(message, [&, this](const auto& call) { meeting_.throw_timeout(call, message.peer_); });
    throw timeout_error("a message");
  }

  void recycle(request_type& message) noexcept {
    const thread_meeting::holding held(meeting_);
    if (message.phase_ != phase::complete) {
      meeting_.raise_silently("a request of a message was dropped before it completed", [&, this]() -> std::string {
        return sentence() << "a request of " << (message.sends_ ? "send to" : "recv from") << " rank "
                          << meeting_.room().launch_rank(message.peer_) << " was dropped before it completed"
                          << describe_site(message.end_.mine().site);
      });
      if (message.phase_ == phase::offered) message.end_.withdraw([] { sched_yield(); });
      forget([&](const request_type* other) { return other == &message; });
      show_progress();
    }
    pool_.give_back(message);
  }

  error_context context_of(const request_type& message) const {
    std::string operation;
    as_call(message, [&](const auto& call) { operation = describe(call); });
    return {meeting_.rank(), meeting_.room().size, {}, std::move(operation), 0, message.end_.mine().site};
  }

 private:
  using phase = typename request_type::phase;
  using step_outcome = typename Transport::end::outcome;

  void advance() {
    for (request_type* message : under_way_) step(*message);
    forget([](const request_type* message) { return message->phase_ == phase::complete; });
    show_progress();
  }
  template <class Is>
  void forget(Is is) {
    std::size_t kept = 0;
    for (request_type* message : under_way_)
      if (!is(message)) under_way_[kept++] = message;
    under_way_.shorten(kept);
  }
  void step(request_type& message) {
    if (message.phase_ != phase::unoffered && message.phase_ != phase::offered) return;
    bool offered = message.phase_ == phase::offered;
    const step_outcome now = transport_.next_step(message.end_, offered, message.peer_, false);
    message.phase_ = now == step_outcome::complete ? phase::complete : offered ? phase::offered : phase::unoffered;
    if (now == step_outcome::mismatch) {
      message.phase_ = phase::mismatched;
      throw_mismatch(message.end_, message.sends_, message.peer_);
    }
  }

  template <class Call>
  [[gnu::noinline]] void meet(const Call& call) {
    constexpr bool sends = std::is_same<Call, send_call>::value;
    sole_message message{transport_.number(call)};
    const auto ready = [&, this] {
      const step_outcome now = transport_.next_step(message.end, message.offered, call.peer, true);
      if (now == step_outcome::mismatch) {
        message.offered = false;
        throw_mismatch(message.end, sends, call.peer);
      }
      return now == step_outcome::complete;
    };
    if (!ready()) meeting_.wait(call, call.peer, ready);
    message.offered = false;
  }

  // A message that its own call waits for. Taken back where the wait ends in an exception.
  struct sole_message {
    typename Transport::end end;
    bool offered = false;
    ~sole_message() {
      if (offered) end.withdraw([] { sched_yield(); });
    }
  };

  void show_progress() noexcept {
    using source = thread_meeting::progress_source;
    if (under_way_.empty()) meeting_.set_progress(source::messages, nullptr, nullptr);
    else
      meeting_.set_progress(
          source::messages, [](void* self) { static_cast<thread_messages*>(self)->advance(); }, this);
  }

  template <class Use>
  static void as_call(const request_type& message, Use use) {
    const message_side& mine = message.end_.mine();
    if (message.sends_) use(send_call{mine.data, mine.count, mine.type, message.peer_, nullptr, mine.site});
    else use(recv_call{mine.data, mine.count, mine.type, message.peer_, nullptr, mine.site});
  }

  [[noreturn, gnu::cold, gnu::noinline]] void throw_mismatch(const typename Transport::end& end, bool sends, int peer) {
    const auto side = [&, this](bool sending, int rank, const message_side& what) -> std::string {
      return sentence() << "rank " << meeting_.room().launch_rank(rank) << (sending ? " sends " : " receives ")
                        << elements(what.count, what.type) << describe_site(what.site);
    };
    meeting_.leave_mismatched_call(sentence() << "message sizes differ: " << side(sends, meeting_.rank(), end.mine())
                                              << ", " << side(!sends, peer, end.other()));
  }

  thread_meeting& meeting_;
  Transport transport_;
  call_pool<request_type> pool_;
  list<request_type*> under_way_;
};

template <class Transport>
template <class Action>
auto thread_request<Transport>::with_context(Action action) {
  const thread_meeting::holding held(messages_->meeting());
  try {
    return action();
  } catch (error& failure) {
    failure.attach(messages_->context_of(*this));
    throw;
  }
}
template <class Transport>
bool thread_request<Transport>::test() {
  return with_context([&, this] {
    if (messages_->is_complete(*this)) return true;
    messages_->meeting().require_alive();
    return false;
  });
}
template <class Transport>
void thread_request<Transport>::wait() {
  with_context([&, this] { messages_->wait(*this); });
}
template <class Transport>
double thread_request<Transport>::deadline() const noexcept {
  return messages_->meeting().room().launch->limits().operation;
}
template <class Transport>
void thread_request<Transport>::expire() {
  with_context([&, this] { messages_->expire(*this); });
  throw timeout_error("a message");
}
template <class Transport>
void thread_request<Transport>::release() noexcept {
  // The last reference may be this one; the pool then goes with it, this object included.
  const shared<shared_object> owner = std::move(owner_);
  messages_->recycle(*this);
}

}  // namespace shardkit::detail
