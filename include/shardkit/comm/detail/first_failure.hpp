// The first failure of a launch: who, and why. Told once, read by everybody; threads of a process share it, and so do
// processes, in memory of both.
#pragma once

#include <shardkit/core/detail/atomic.hpp>
#include <shardkit/core/detail/waiting.hpp>
#include <shardkit/core/error.hpp>

#include <cstdio>
#include <exception>

namespace shardkit::detail {

/// No pointers and no allocation, which could fail, while failing. To ask whether nothing has failed is one load.
class first_failure {
 public:
  bool clear() const noexcept { return phase_.load(memory_order_relaxed) == none_yet; }
  /// Whether a failure has been recorded, by any rank.
  //
  // Sequentially consistent, as are the writers: a rank that exposes its buffers and then sees no failure can rely on
  // every rank that records one later to see it exposed.
  bool failed() const noexcept { return phase_.load() > closed; }
  /// Whether no other reason of the failure is waited for.
  bool told() const noexcept { return failed() && !more_may_come(); }

  /// Records that `culprit` failed. The first report counts; later ones are ignored. On return failed() is true,
  /// whoever came first, unless this is closed.
  [[gnu::cold, gnu::noinline]] void publish(int culprit, const char* reason) noexcept {
    int before = none_yet;
    if (!phase_.compare_exchange_strong(before, being_written)) return;
    culprit_ = culprit;
    finish(reason);
  }
  /// The same by the culprit itself, `rank`, which may replace what it has said by publish_unless_more_comes.
  [[gnu::cold, gnu::noinline]] void publish_own(int rank, const char* reason) noexcept {
    int before = withheld;
    if (more_may_come() && culprit_ == rank && phase_.compare_exchange_strong(before, being_replaced)) finish(reason);
    else publish(rank, reason);
  }
  /// The same where `rank` is about to say more than `reason`, by publish_own: nobody enters a call any more, but those
  /// who ask for the reason wait for the other one, for `patience` from now. Then this one counts.
  [[gnu::cold, gnu::noinline]] void publish_unless_more_comes(int rank, const char* reason) noexcept {
    int before = none_yet;
    if (!phase_.compare_exchange_strong(before, being_written)) return;
    culprit_ = rank;
    std::snprintf(provisional_, sizeof provisional_, "%s", reason);
    patient_until_ = now_seconds() + patience;
    phase_.store(withheld);
  }
  /// From now on no failure is recorded, and nothing is clear.
  void close() noexcept {
    int before = none_yet;
    phase_.compare_exchange_strong(before, closed);
  }
  bool is_closed() const noexcept { return phase_.load() == closed; }

  /// Once failed() is true; -1 where the culprit vanished while it was writing.
  int culprit() const noexcept {
    return await([this] { return phase_.load() == being_written; }) ? culprit_ : -1;
  }
  /// Once failed() is true.
  const char* reason() const noexcept {
    // A thread that an exception is passing may be the one that is awaited, in a destructor on the way.
    const bool patient = std::uncaught_exceptions() == 0;
    const auto unknown = [&, this] {
      const int phase = phase_.load();
      return phase == being_written || phase == being_replaced || (patient && more_may_come());
    };
    if (!await(unknown)) return "(unknown)";
    return phase_.load() == published ? reason_ : provisional_;
  }
  /// Once failed() is true: throws peer_failed with culprit and reason.
  [[noreturn, gnu::cold, gnu::noinline]] void throw_failure() const { throw peer_failed(culprit(), reason()); }

  /// Seconds that a failed rank has for more. An exception takes microseconds from a destructor to its handler, unless
  /// another destructor on its way waits for something.
  static constexpr double patience = 0.5;

 private:
  // All above `closed` are failures.
  enum : int { none_yet, closed, being_written, withheld, being_replaced, published };

  void finish(const char* reason) noexcept {
    std::snprintf(reason_, sizeof reason_, "%s", reason);
    phase_.store(published);
  }
  bool more_may_come() const noexcept { return phase_.load() == withheld && now_seconds() < patient_until_; }
  // A writer needs microseconds between its two steps; a reader gives it a second.
  template <class Unknown>
  static bool await(Unknown unknown) noexcept {
    for (int wait = 0; unknown(); ++wait) {
      if (wait == 1000) return false;
      sleep_seconds(0.001);
    }
    return true;
  }

  atomic<int> phase_{none_yet};
  int culprit_ = -1;
  double patient_until_ = 0;
  char reason_[1000] = {};
  char provisional_[500] = {};  // apart, for those who read it when the other is written
};

}  // namespace shardkit::detail
