// What the ranks of one in-process launch share beside their communicators: the first failure, which reaches every
// communicator of the launch, and who has left.
#pragma once

#include <shardkit/comm/deadlines.hpp>
#include <shardkit/comm/detail/first_failure.hpp>
#include <shardkit/core/detail/atomic.hpp>
#include <shardkit/core/detail/list.hpp>

#include <cstddef>

namespace shardkit {

/// What all communicators of one launch share: its deadlines, and the first failure. Culprits are ranks of the launch.
class launch_state : public detail::first_failure {
 public:
  launch_state(int size, const deadlines& limits) : limits_(limits), left_(static_cast<std::size_t>(size)) {}

  /// The deadlines of every wait in this launch.
  const deadlines& limits() const noexcept { return limits_; }

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
  deadlines limits_;
  detail::list<detail::atomic<bool>> left_;
  detail::atomic<bool> stop_{false};
};

}  // namespace shardkit
