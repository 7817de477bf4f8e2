// How a rank of a thread_room waits for its peers, and how it gives up. Every wait ends at the operation deadline, or
// at once where the launch fails or an awaited rank has left; whatever ends it, this rank's buffers are then safe to
// free.
#pragma once

#include <shardkit/backends/detail/thread_activity.hpp>
#include <shardkit/backends/detail/thread_room.hpp>
#include <shardkit/core/detail/atomic.hpp>

#include <exception>
#include <string>
#include <utility>

namespace shardkit::detail {

/// Base of the rank's part in the calls, thread_meeting. What calls seldom need is virtual, and so compiled where ranks
/// are made instead of in every source that makes a call.
class thread_waiting : public thread_activity {
 public:
  int rank() const noexcept { return rank_; }
  thread_room& room() const noexcept { return *room_; }

  /// Waits for `ready` on account of `rank`, going on with what is under way.
  template <class Ready>
  void wait(const described_call& call, int rank, Ready ready) {
    const auto look = [&, this] { return ready() || (go_on() && ready()); };
    if (!spin_until(room_->spins, look)) wait_longer(call, rank, look);
  }

  bool failed() const noexcept { return room_->launch->failed(); }
  /// Throws where the launch has failed, when this rank's buffers are safe to free.
  void require_not_failed() {
    if (failed()) leave_failed_call();
  }
  void require_alive() const {
    if (room_->launch->failed()) room_->launch->throw_failure();
  }

  /// Makes this rank's buffers safe to free, then throws the launch's failure.
  [[noreturn, gnu::cold, gnu::noinline]] void leave_failed_call() {
    withdraw();
    room_->launch->throw_failure();
  }
  /// The same where this rank has found that another makes a different call.
  [[noreturn, gnu::cold, gnu::noinline]] void leave_mismatched_call(const std::string& text) {
    raise(rank_, text);
    withdraw();
    throw mismatch_error(text);
  }

  /// Raises a failure of this rank's making.
  [[gnu::cold, gnu::noinline]] void raise(int rank, const std::string& reason) noexcept {
    const int culprit = room_->launch_rank(rank);
    if (rank == rank_) room_->launch->publish_own(culprit, reason.c_str());
    else room_->launch->publish(culprit, reason.c_str());
  }
  /// The same of this rank, where nothing may be thrown: the reason is `text()`, or the shorter one where there is no
  /// memory for it. An exception that is passing is the cause, which whoever catches it tells, or has dealt with.
  template <class Text>
  void raise_silently(const char* shorter, Text text) noexcept {
    if (failed()) return;
    thread_launch& launch = *room_->launch;
    const int rank = room_->launch_rank(rank_);
    const bool passing = std::uncaught_exceptions() != 0;
    const auto tell = [&](const char* reason) {
      if (passing) launch.publish_unless_more_comes(rank, reason);
      else launch.publish(rank, reason);
    };
    try {
      const std::string reason = sentence() << text() << (passing ? ", by an exception" : "");
      tell(reason.c_str());
    } catch (...) {
      tell(shorter);
    }
    if (!passing) launch.leave_to_caller();
  }

  /// Ends this rank's part in a failed call: says that it reads no more, and waits until no peer can be reading its own
  /// buffers. A peer that publishes from now on sees the failure before it reads anything; one that has published
  /// another call sees that before.
  [[gnu::cold, gnu::noinline]] virtual void withdraw() noexcept {
    room_->slot(rank_).withdrawn.store(true);
    if (!exposed_) return;
    for (int rank = 0; rank < room_->size; ++rank) {
      if (rank == rank_) continue;
      const thread_slot& peer = room_->slot(rank);
      const thread_line& theirs = room_->line(rank, call_);
      const auto quiet = [&, this] {
        return peer.withdrawn.load() || peer.done.load() >= call_ || theirs.call.load() < call_ ||
               theirs.history != history_ || (peer.deferred.load() == call_ && !peer.reading.load()) ||
               room_->launch->has_left(room_->launch_rank(rank));
      };
      // Without a deadline: the peer is copying, or about to see the failure; neither can block.
      const auto never = [] { return false; };
      yield_until(no_deadline, quiet, never);
    }
    exposed_ = false;
    if (on_withdrawal_ != nullptr) on_withdrawal_(withdrawing_);
  }
  /// What is done when a call has been left whose buffers peers have used: where they only told a device to, it still
  /// uses them. May not throw.
  void set_on_withdrawal(void (*function)(void*), void* context) noexcept {
    on_withdrawal_ = function;
    withdrawing_ = context;
  }

  [[noreturn, gnu::cold, gnu::noinline]] void throw_timeout(const described_call& call, int rank) {
    const int launch_rank = room_->launch_rank(rank);
    const std::string text = sentence() << "rank " << launch_rank << " did not arrive in " << call.text()
                                        << " within the operation deadline of " << room_->launch->limits().operation
                                        << " s" << room_->launch->waits(launch_rank).text();
    raise(rank, sentence() << text << "; awaited" << describe_site(call.site()));
    withdraw();
    throw timeout_error(text);
  }

 protected:
  thread_waiting(shared<thread_room> room, int rank)
      : thread_activity(room->launch->progress(room->launch_rank(rank))), room_(std::move(room)), rank_(rank) {}

  // For a rank to have come to a call, or to have done with it.
  [[gnu::noinline]] void wait(const described_call& call, int rank, const atomic<std::uint64_t>& reached,
                              std::uint64_t number) {
    wait(call, rank, [&] { return reached.load(memory_order_acquire) >= number; });
  }

  shared<thread_room> room_;
  const int rank_;
  std::uint64_t call_ = 0;     // the last one that this rank has begun
  std::uint64_t history_ = 0;  // of its calls, as in the records
  bool exposed_ = false;       // peers may be reading its buffers

 private:
  [[gnu::cold, gnu::noinline]] virtual void wait_longer(const described_call& call, int rank, const condition& ready) {
    launch_state& launch = *room_->launch;
    const int launch_rank = room_->launch_rank(rank);
    const auto interrupted = [&, this] {
      return launch.failed() || launch.has_left(launch_rank) || room_->slot(rank).end.load() != thread_slot::no_end;
    };
    constexpr double unnoticed = 20e-3;
    const double limit = launch.limits().operation, soon = limit < unnoticed ? limit : unnoticed;
    wait_result result = yield_until(soon, ready, interrupted);
    if (result == wait_result::expired) {
      const thread_waits::entry shown(room_->launch->waits(room_->launch_rank(rank_)), call, launch_rank);
      result = yield_until(limit - soon, ready, interrupted);
      if (result == wait_result::expired) throw_timeout(call, rank);
    }
    if (result == wait_result::ready) return;
    if (result == wait_result::interrupted && !launch.failed())
      raise(rank, sentence() << "left while rank " << room_->launch_rank(rank_) << " waits in " << call.text()
                             << describe_site(call.site()));
    leave_failed_call();
  }

  void (*on_withdrawal_)(void*) = nullptr;
  void* withdrawing_ = nullptr;
};

}  // namespace shardkit::detail
