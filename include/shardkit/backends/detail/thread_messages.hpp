// One rank's messages: its place in every channel, and the requests of sends and receives under way.
#pragma once

#include <shardkit/backends/detail/thread_meeting.hpp>
#include <shardkit/comm/request.hpp>

#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace shardkit::detail {

class thread_messages;

/// A send or receive whose other side has not come yet. Lives in the pool of its rank, which it keeps alive.
class thread_request final : public pending_call {
 public:
  bool test() override;
  void wait() override;
  void release() noexcept override;

 private:
  friend class thread_messages;

  std::shared_ptr<thread_messages> owner_;
  message_end end_{no_channel(), 0, true, {}};
  call_site site_;
  int peer_ = 0;
  bool sends_ = false, offered_ = false, complete_ = false;

  static thread_channel& no_channel() {
    static thread_channel none;
    return none;
  }
};

/// Started by one rank's calls; shared with its requests, so that they outlive a moved or destroyed communicator.
class thread_messages : public std::enable_shared_from_this<thread_messages> {
 public:
  explicit thread_messages(std::shared_ptr<thread_room> room, int rank)
      : meeting_(std::move(room), rank),
        sent_(static_cast<std::size_t>(meeting_.room().size)),
        received_(static_cast<std::size_t>(meeting_.room().size)) {}

  thread_meeting& meeting() noexcept { return meeting_; }

  request start(const send_call& call) { return request(prepare(call)); }
  request start(const recv_call& call) { return request(prepare(call)); }

  /// Numbers the message and offers it if its slot is free; what is not complete goes on in `advance`.
  thread_request* prepare(const send_call& call) {
    // The buffer is only read; one field serves both directions.
    return prepare(true, call.peer, {const_cast<void*>(call.in), call.count, call.type, call.site});
  }
  thread_request* prepare(const recv_call& call) {
    return prepare(false, call.peer, {call.out, call.count, call.type, call.site});
  }

  /// Goes on with a message as far as possible without waiting; true when complete.
  bool advance(thread_request& message) {
    if (message.complete_) return true;
    message_end::outcome outcome;
    if (message.offered_) {
      outcome = message.end_.poll();
    } else {
      if (!message.end_.can_offer()) return false;
      message.offered_ = true;
      outcome = message.end_.offer();
    }
    if (outcome == message_end::outcome::mismatch) throw_mismatch(message);
    return message.complete_ = outcome == message_end::outcome::complete;
  }

  void wait(thread_request& message) {
    const auto ready = [&] { return advance(message); };
    const message_side& mine = message.end_.mine();
    if (message.sends_)
      meeting_.wait(send_call{mine.data, mine.count, mine.type, message.peer_, nullptr, message.site_}, message.peer_, ready);
    else
      meeting_.wait(recv_call{mine.data, mine.count, mine.type, message.peer_, nullptr, message.site_}, message.peer_, ready);
  }

  void recycle(thread_request& message) noexcept {
    if (!message.complete_) {
      meeting_.raise(meeting_.rank(), std::string("a request of ") + (message.sends_ ? "send to" : "recv from") +
                                          " rank " + std::to_string(message.peer_) + " was dropped before it completed" +
                                          describe_site(message.site_));
      if (message.offered_) message.end_.withdraw([] { sched_yield(); });
    }
    free_.push_back(&message);
  }

 private:
  thread_request* prepare(bool sends, int peer, const message_side& mine) {
    meeting_.require_alive();
    thread_room& room = meeting_.room();
    thread_request* message = take();
    auto& number = (sends ? sent_ : received_)[static_cast<std::size_t>(peer)];
    thread_channel& channel = sends ? room.channel(meeting_.rank(), peer) : room.channel(peer, meeting_.rank());
    message->end_ = message_end(channel, number++, sends, mine);
    message->site_ = mine.site;
    message->peer_ = peer;
    message->sends_ = sends;
    message->offered_ = message->complete_ = false;
    message->owner_ = shared_from_this();
    try {
      advance(*message);
    } catch (...) {
      message->release();
      throw;
    }
    return message;
  }

  thread_request* take() {
    if (free_.empty()) {
      pool_.push_back(std::make_unique<thread_request>());
      free_.reserve(pool_.size());
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
    const std::string text = "message sizes differ: " + side(message.sends_, meeting_.rank(), message.end_.mine()) +
                             ", " + side(!message.sends_, message.peer_, message.end_.other());
    message.complete_ = true;
    meeting_.raise(meeting_.rank(), text);
    throw mismatch_error(text);
  }

  thread_meeting meeting_;
  std::vector<std::uint64_t> sent_, received_;  // messages so far, by peer
  std::vector<std::unique_ptr<thread_request>> pool_;
  std::vector<thread_request*> free_;
};

inline bool thread_request::test() {
  if (owner_->advance(*this)) return true;
  owner_->meeting().require_alive();
  return false;
}
inline void thread_request::wait() { owner_->wait(*this); }
inline void thread_request::release() noexcept {
  // The last reference may be this one; the pool then goes with it, this object included.
  const std::shared_ptr<thread_messages> owner = std::move(owner_);
  owner->recycle(*this);
}

}  // namespace shardkit::detail
