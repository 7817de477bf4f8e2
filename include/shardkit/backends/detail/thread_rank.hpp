// One rank's end of a communicator of threads, with everything under way on it. Shared by the backend object and its
// requests, which may outlive it. Which memory is meant is the business of the collectives and of the transport of
// messages, for which this is a template.
#pragma once

#include <shardkit/backends/detail/thread_collectives.hpp>
#include <shardkit/backends/detail/thread_control.hpp>
#include <shardkit/backends/detail/thread_messages.hpp>
#include <shardkit/backends/detail/thread_queue.hpp>

#include <type_traits>
#include <utility>

namespace shardkit::detail {

template <class Collectives, class Transport>
class thread_rank_of;

/// Several messages and collectives with one request.
template <class Rank>
class thread_batch : public pending_call {
 public:
  inline bool test() override;
  inline void wait() override;
  double deadline() const noexcept override { return parts_.front()->deadline(); }
  [[noreturn]] inline void expire() override;
  inline void release() noexcept override;

 private:
  friend Rank;

  Rank* rank_ = nullptr;
  shared<shared_object> owner_;
  list<pending_call*> parts_;
};

/// One collective from beginning to end, with nothing else under way.
template <class Collectives, class Call>
void run_collective(thread_meeting& meeting, Collectives& collectives, const Call& call) {
  collectives.publish(call);
  collectives.work(call);
  if (meeting.exposed()) meeting.finish(call);
  collectives.conclude(call);
}

template <class Collectives, class Transport>
class thread_rank_of final : public shared_object {
  using batch = thread_batch<thread_rank_of>;

 public:
  /// `parts` is what collectives and transport are made of beside the meeting.
  template <class... Parts>
  thread_rank_of(shared<thread_room> room, int rank, const Parts&... parts)
      : meeting_(std::move(room), rank),
        messages_(meeting_, parts...),
        collectives_(meeting_, parts...),
        queue_(meeting_, collectives_) {}

  thread_meeting& meeting() noexcept { return meeting_; }
  control_lane& control() noexcept { return control_; }

  // Templates for every kind of call, so that a program compiles only what it uses.

  template <class Call>
  void perform(const Call& call) {
    if constexpr (has_parts<Call>) {
      start(call).wait();
    } else if constexpr (is_message<Call>) {
      exchange(call);
    } else {
      if (!meeting_.active()) return run_collective(meeting_, collectives_, call);
      const thread_meeting::holding held(meeting_);
      meeting_.settle();
      run_collective(meeting_, collectives_, call);
    }
  }

  /// For what has to meet the peers outside the verbs: body() with nothing started before it left to do.
  template <class Body>
  auto apart(Body body) {
    const thread_meeting::holding held(meeting_);
    meeting_.settle();
    return body();
  }

  template <class Call>
  request start(const Call& call) {
    const thread_meeting::holding held(meeting_);
    if constexpr (has_parts<Call>) {
      batch& parts = take();
      request whole(&parts);
      add_parts(parts, call);
      return whole;
    } else {
      return request(&start_one(call));
    }
  }

  void recycle(batch& whole) noexcept {
    const thread_meeting::holding held(meeting_);
    for (pending_call* part : whole.parts_) part->release();
    whole.parts_.clear();
    batches_.give_back(whole);
  }

 private:
  template <class Call>
  void exchange(const Call& call) {
    // Where nothing else is under way, a message that is waited for needs no lock, either.
    if (meeting_.active()) return start(call).wait();
    if (call.peer != meeting_.rank()) messages_.perform(call);
    else messages_.perform_as_request(call, shared<shared_object>(this));
  }

  template <class Call>
  static constexpr bool has_parts = std::is_same<Call, send_recv_call>::value || std::is_same<Call, group_call>::value;

  template <class Call>
  pending_call& start_one(const Call& call) {
    if constexpr (is_message<Call>) return *messages_.prepare(call, shared<shared_object>(this));
    else return *queue_.start(call, shared<shared_object>(this));
  }
  template <class Call>
  void add(batch& whole, const Call& call) {
    if constexpr (has_parts<Call>) {
      add_parts(whole, call);
    } else {
      whole.parts_.make_room();
      whole.parts_.push_back(&start_one(call));
    }
  }
  /// The parts of an exchange, or of a group. Messages are started in the order listed; while collectives, in their
  /// order, wait for peers, the messages go on.
  template <class Call>
  void add_parts(batch& whole, const Call& call) {
    if constexpr (std::is_same<Call, send_recv_call>::value) {
      add(whole, recv_call{call.out, call.recv_count, call.type, call.from, call.stream, call.site});
      add(whole, send_call{call.in, call.send_count, call.type, call.to, call.stream, call.site});
    } else {
      thread_rank_of& self = *this;
      for (const bool messages : {true, false})
        for (std::size_t i = 0; i < call.count; ++i)
          visit(
              [&](const auto& one) {
                if (is_message<std::decay_t<decltype(one)>> == messages) self.add(whole, one);
              },
              call.calls[i]);
    }
  }

  batch& take() {
    batch& taken = batches_.take();
    taken.rank_ = this;
    taken.owner_ = shared<shared_object>(this);
    return taken;
  }

  thread_meeting meeting_;
  thread_messages<Transport> messages_;
  Collectives collectives_;
  thread_queue<Collectives> queue_;
  call_pool<batch> batches_;
  thread_control<thread_meeting> control_{meeting_};
};

/// Of host memory.
using thread_rank = thread_rank_of<thread_collectives, thread_transport>;

template <class Rank>
bool thread_batch<Rank>::test() {
  bool all = true;
  for (pending_call* part : parts_) all = part->test() && all;
  return all;
}
template <class Rank>
void thread_batch<Rank>::wait() {
  // Each wait goes on with all of them.
  for (pending_call* part : parts_) part->wait();
}
template <class Rank>
void thread_batch<Rank>::expire() {
  for (pending_call* part : parts_)
    if (!part->test()) part->expire();
  throw timeout_error("a group");
}
template <class Rank>
void thread_batch<Rank>::release() noexcept {
  const shared<shared_object> owner = std::move(owner_);
  rank_->recycle(*this);
}

}  // namespace shardkit::detail
