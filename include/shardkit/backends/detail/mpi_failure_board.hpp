// The first failure of a launch, where the processes of one node can read it: in memory that they share.
#pragma once

#include <shardkit/core/detail/atomic.hpp>
#include <shardkit/core/detail/waiting.hpp>
#include <shardkit/core/error.hpp>

#include <cstdio>
#include <exception>
#include <string>

#include <unistd.h>

namespace shardkit::detail {

/// A text that one of several processes writes, once. Lies in shared memory.
class mpi_notice {
 public:
  void publish(const char* text) noexcept {
    int none = none_yet;
    if (!phase_.compare_exchange_strong(none, being_written)) return;
    std::snprintf(text_, sizeof text_, "%s", text);
    phase_.store(written, memory_order_release);
  }
  bool published() const noexcept { return phase_.load(memory_order_acquire) == written; }
  const char* text() const noexcept { return text_; }

 private:
  enum : int { none_yet, being_written, written };

  atomic<int> phase_{none_yet};
  char text_[1000] = {};
};

/// Lies in shared memory: no pointers, no allocation. A check that nothing has failed is one relaxed load.
class mpi_failure_board {
 public:
  bool clear() const noexcept { return phase_.load(memory_order_relaxed) == none_yet; }
  bool failed() const noexcept {
    const int phase = phase_.load(memory_order_acquire);
    return phase == withheld || phase == being_written || phase == published;
  }
  /// Whether no other reason of the failure is waited for.
  bool told() const noexcept { return failed() && !more_may_come(); }

  /// Records that world rank `culprit` failed. The first report counts; later ones are ignored.
  void publish(int culprit, const char* reason) noexcept {
    int before = none_yet;
    if (!phase_.compare_exchange_strong(before, being_written) &&
        (before != withheld || culprit != culprit_ || !more_may_come() ||
         !phase_.compare_exchange_strong(before, being_written)))
      return;
    culprit_ = culprit;
    std::snprintf(reason_, sizeof reason_, "%s", reason);
    phase_.store(published, memory_order_release);
  }
  /// The same where the culprit is about to say more than `reason`, by `publish`: nobody enters a call any more, but
  /// those who ask for the reason wait for the other one, for `patience` from now. Then this one counts.
  void publish_unless_more_comes(int culprit, const char* reason) noexcept {
    int none = none_yet;
    if (!phase_.compare_exchange_strong(none, being_written)) return;
    culprit_ = culprit;
    std::snprintf(provisional_, sizeof provisional_, "%s", reason);
    patient_until_ = now_seconds() + patience;
    phase_.store(withheld, memory_order_release);
  }
  /// From now on calls are refused because MPI has ended.
  void close() noexcept {
    int none = none_yet;
    phase_.compare_exchange_strong(none, closed);
  }

  /// World rank of the culprit; -1 where it vanished while it was writing.
  int culprit() const noexcept { return readable() ? culprit_ : -1; }
  const char* reason() const noexcept {
    if (!readable()) return "(unknown)";
    return phase_.load(memory_order_acquire) == published ? reason_ : provisional_;
  }

  /// What a call throws that finds the board not clear.
  [[noreturn, gnu::cold, gnu::noinline]] void throw_failure() const {
    if (phase_.load(memory_order_acquire) == closed)
      throw usage_error("the mpi_environment has ended; its communicators can only be destroyed now");
    throw peer_failed(culprit(), reason());
  }

  /// A process whose environment has ended after the failure will enter no further call.
  void depart() noexcept { departed_.fetch_add(1); }
  int departed() const noexcept { return departed_.load(); }
  /// How many have done so on other nodes.
  void depart_elsewhere(int processes) noexcept { departed_elsewhere_.store(processes); }
  int departed_elsewhere() const noexcept { return departed_elsewhere_.load(); }

  /// In which call somebody has waited too long, and the ranks that are elsewhere: how nodes ask each other.
  mpi_notice& question() noexcept { return question_; }
  mpi_notice& answer() noexcept { return answer_; }

 private:
  enum : int { none_yet, withheld, being_written, published, closed };

  // Seconds that a failed rank has for more. An exception takes microseconds from a destructor to its handler, unless
  // another destructor on its way waits for something.
  static constexpr double patience = 0.5;

  bool more_may_come() const noexcept {
    return phase_.load(memory_order_acquire) == withheld && now_seconds() < patient_until_;
  }
  // A writer needs microseconds between its two steps; a reader gives it a second. A thread that an exception is
  // passing may be the one that is awaited, in a destructor on the way.
  bool readable() const noexcept {
    const bool passing = std::uncaught_exceptions() != 0;
    const auto awaited = [&, this] {
      return phase_.load(memory_order_acquire) == being_written || (!passing && more_may_come());
    };
    for (int wait = 0; wait < 1000 && awaited(); ++wait) ::usleep(1000);
    const int phase = phase_.load(memory_order_acquire);
    return phase == withheld || phase == published;
  }

  atomic<int> phase_{none_yet};
  atomic<int> departed_{0}, departed_elsewhere_{0};
  int culprit_ = -1;
  double patient_until_ = 0;
  char reason_[1000] = {};
  char provisional_[200] = {};  // apart, for those who read it when the other is written
  mpi_notice question_, answer_;
};

}  // namespace shardkit::detail
