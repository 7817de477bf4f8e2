// Host messages that the ranks of a room have posted to each other and nobody has taken yet. Small and seldom: a lock
// and a map, which is empty where no rank uses its control lane.
#pragma once

#include <shardkit/backends/detail/thread_progress.hpp>
#include <shardkit/comm/control.hpp>

#include <atomic>
#include <cstddef>
#include <deque>
#include <map>
#include <mutex>
#include <tuple>
#include <utility>

namespace shardkit::detail {

class thread_letters {
 public:
  struct box {
    int from, to;
    bool exchanged;  ///< else posted
    control_topic topic;

    bool operator<(const box& other) const noexcept {
      return std::tie(from, to, exchanged, topic) < std::tie(other.from, other.to, other.exchanged, other.topic);
    }
  };

  void put(const box& to, const control_lane::blob& message) {
    const std::lock_guard<thread_lock> lock(lock_);
    boxes_[to].push_back(message);
    count_.fetch_add(1, std::memory_order_release);
  }
  bool get(const box& from, control_lane::blob& message) {
    // Who waits looks often, mostly at nothing.
    if (count_.load(std::memory_order_acquire) == 0) return false;
    const std::lock_guard<thread_lock> lock(lock_);
    const auto found = boxes_.find(from);
    if (found == boxes_.end()) return false;
    message = std::move(found->second.front());
    found->second.pop_front();
    if (found->second.empty()) boxes_.erase(found);
    count_.fetch_sub(1, std::memory_order_relaxed);
    return true;
  }

 private:
  thread_lock lock_;
  std::atomic<std::size_t> count_{0};
  std::map<box, std::deque<control_lane::blob>> boxes_;
};

}  // namespace shardkit::detail
