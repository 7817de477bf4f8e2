// What the ranks of one in-process launch share beside their communicators: the first failure, which reaches every
// communicator of the launch, and who has left.
#pragma once

#include <shardkit/comm/deadlines.hpp>
#include <shardkit/core/detail/atomic.hpp>
#include <shardkit/core/detail/list.hpp>
#include <shardkit/core/error.hpp>

#include <cstddef>
#include <cstdio>
#include <string>

namespace shardkit {

/// What all communicators of one launch share: its deadlines, and the first failure.
class launch_state {
 public:
  launch_state(int size, const deadlines& limits) : limits_(limits), left_(static_cast<std::size_t>(size)) {}

  /// The deadlines of every wait in this launch.
  const deadlines& limits() const noexcept { return limits_; }

  /// Records that `culprit` (a rank of the launch) failed. The first report counts; later ones are ignored. On return
  /// failed() is true, whoever reported first.
  [[gnu::cold, gnu::noinline]] void raise(int culprit, const char* reason) noexcept {
    int none = none_yet;
    if (!phase_.compare_exchange_strong(none, being_written)) {
      while (!failed()) {  // for as long as the first report takes to be written down
      }
      return;
    }
    culprit_ = culprit;
    std::snprintf(reason_, sizeof reason_, "%s", reason);
    phase_.store(published);
  }

  /// Whether a failure has been recorded, by any rank.
  //
  // Sequentially consistent, as is raise: a rank that exposes its buffers and then sees no failure can rely on every
  // rank that raises one later to see it exposed.
  bool failed() const noexcept { return phase_.load() == published; }

  /// Valid once failed() is true.
  int culprit() const noexcept { return culprit_; }
  /// Throws peer_failed with culprit and reason. Valid once failed() is true.
  [[noreturn, gnu::cold, gnu::noinline]] void throw_failure() const { throw peer_failed(culprit_, reason_); }

  /// The rank's function has returned: it will take part in no further call.
  void leave(int rank) noexcept { left_[static_cast<std::size_t>(rank)].store(true, detail::memory_order_release); }
  /// Whether that rank's function has returned.
  bool has_left(int rank) const noexcept {
    return left_[static_cast<std::size_t>(rank)].load(detail::memory_order_acquire);
  }

  /// Wishes that all ranks stop, which is no failure.
  void ask_to_stop() noexcept { stop_.store(true, detail::memory_order_release); }
  /// Whether any rank wishes so.
  bool stop_asked() const noexcept { return stop_.load(detail::memory_order_acquire); }

 private:
  enum : int { none_yet, being_written, published };

  deadlines limits_;
  detail::list<detail::atomic<bool>> left_;
  detail::atomic<int> phase_{none_yet};
  detail::atomic<bool> stop_{false};
  int culprit_ = -1;
  char reason_[512] = {};  // no allocation, which could fail, while failing
};

}  // namespace shardkit
