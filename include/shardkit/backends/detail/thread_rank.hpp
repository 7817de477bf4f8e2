// One rank's end of a communicator of threads, with everything under way on it. Shared by the backend object and its
// requests, which may outlive it.
#pragma once

#include <shardkit/backends/detail/thread_messages.hpp>
#include <shardkit/backends/detail/thread_queue.hpp>

#include <memory>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

namespace shardkit::detail {

class thread_rank;

/// Several messages and collectives with one request.
class thread_batch final : public pending_call {
 public:
  inline bool test() override;
  inline void wait() override;
  double deadline() const noexcept override { return parts_.front()->deadline(); }
  [[noreturn]] inline void expire() override;
  inline void release() noexcept override;

 private:
  friend class thread_rank;

  thread_rank* rank_ = nullptr;
  std::shared_ptr<void> owner_;
  std::vector<pending_call*> parts_;
};

class thread_rank : public std::enable_shared_from_this<thread_rank> {
 public:
  thread_rank(std::shared_ptr<thread_room> room, int rank)
      : meeting_(std::move(room), rank), messages_(meeting_), collectives_(meeting_), queue_(meeting_, collectives_) {}
  thread_rank(const thread_rank&) = delete;
  thread_rank& operator=(const thread_rank&) = delete;

  thread_meeting& meeting() noexcept { return meeting_; }

  // Templates for every kind of call, so that a program compiles only what it uses.

  template <class Call>
  void perform(const Call& call) {
    if constexpr (has_parts<Call>) {
      start(call).wait();
    } else if constexpr (is_message<Call>) {
      exchange(call);
    } else {
      if (!meeting_.active()) return run(call);
      const thread_meeting::holding held(meeting_);
      queue_.settle();
      run(call);
    }
  }

  /// For what has to meet the peers outside the verbs: body() with nothing started before it left to do.
  template <class Body>
  auto apart(Body body) {
    const thread_meeting::holding held(meeting_);
    queue_.settle();
    return body();
  }

  template <class Call>
  request start(const Call& call) {
    const thread_meeting::holding held(meeting_);
    if constexpr (has_parts<Call>) {
      thread_batch& batch = take();
      request whole(&batch);
      add_parts(batch, call);
      return whole;
    } else {
      return request(&start_one(call));
    }
  }

  void recycle(thread_batch& batch) noexcept {
    const thread_meeting::holding held(meeting_);
    for (pending_call* part : batch.parts_) part->release();
    batch.parts_.clear();
    free_.push_back(&batch);
  }

 private:
  template <class Call>
  void run(const Call& call) {
    collectives_.publish(call);
    collectives_.work(call);
    if (!meeting_.exposed()) return;
    meeting_.await_all(call);
    meeting_.finish(call);
  }
  template <class Call>
  void exchange(const Call& call) {
    // Where nothing else is under way, a message that is waited for needs no lock, either.
    if (meeting_.active()) return start(call).wait();
    if (call.peer != meeting_.rank()) messages_.perform(call);
    else messages_.perform_as_request(call, shared_from_this());
  }

  template <class Call>
  static constexpr bool has_parts = std::is_same<Call, send_recv_call>::value || std::is_same<Call, group_call>::value;

  template <class Call>
  pending_call& start_one(const Call& call) {
    if constexpr (is_message<Call>) return *messages_.prepare(call, shared_from_this());
    else return *queue_.start(call, shared_from_this());
  }
  template <class Call>
  void add(thread_batch& batch, const Call& call) {
    if constexpr (has_parts<Call>) {
      add_parts(batch, call);
    } else {
      batch.parts_.reserve(batch.parts_.size() + 1);
      batch.parts_.push_back(&start_one(call));
    }
  }
  /// The parts of an exchange, or of a group. Messages are started in the order listed; while collectives, in their
  /// order, wait for peers, the messages go on.
  template <class Call>
  void add_parts(thread_batch& batch, const Call& call) {
    if constexpr (std::is_same<Call, send_recv_call>::value) {
      add(batch, recv_call{call.out, call.recv_count, call.type, call.from, call.stream, call.site});
      add(batch, send_call{call.in, call.send_count, call.type, call.to, call.stream, call.site});
    } else {
      for (const bool messages : {true, false})
        for (std::size_t i = 0; i < call.count; ++i)
          std::visit(
              [&](const auto& one) {
                if (is_message<std::decay_t<decltype(one)>> == messages) add(batch, one);
              },
              call.calls[i]);
    }
  }

  thread_batch& take() {
    if (free_.empty()) {
      free_.reserve(pool_.size() + 1);
      pool_.push_back(std::make_unique<thread_batch>());
      free_.push_back(pool_.back().get());
    }
    thread_batch& batch = *free_.back();
    free_.pop_back();
    batch.rank_ = this;
    batch.owner_ = shared_from_this();
    return batch;
  }

  thread_meeting meeting_;
  thread_messages messages_;
  thread_collectives collectives_;
  thread_queue queue_;
  std::vector<std::unique_ptr<thread_batch>> pool_;
  std::vector<thread_batch*> free_;
};

inline bool thread_batch::test() {
  bool all = true;
  for (pending_call* part : parts_) all = part->test() && all;
  return all;
}
inline void thread_batch::wait() {
  // Each wait goes on with all of them.
  for (pending_call* part : parts_) part->wait();
}
inline void thread_batch::expire() {
  for (pending_call* part : parts_)
    if (!part->test()) part->expire();
  throw timeout_error("a group");
}
inline void thread_batch::release() noexcept {
  const std::shared_ptr<void> owner = std::move(owner_);
  rank_->recycle(*this);
}

}  // namespace shardkit::detail
