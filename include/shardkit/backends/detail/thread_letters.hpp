// Host messages that the ranks of a room have posted to each other and nobody has taken yet. Small, seldom and few: a
// lock and a list, which is empty where no rank uses its control lane.
#pragma once

#include <shardkit/backends/detail/thread_progress.hpp>
#include <shardkit/comm/control.hpp>
#include <shardkit/core/detail/atomic.hpp>

#include <cstddef>
#include <utility>
#include <vector>

namespace shardkit::detail {

class thread_letters {
 public:
  struct box {
    int from, to;
    bool exchanged;  ///< else posted
    control_topic topic;

    bool operator==(const box& other) const noexcept {
      return from == other.from && to == other.to && exchanged == other.exchanged && topic == other.topic;
    }
  };

  void put(const box& to, const control_lane::blob& message) {
    letter written{to, message};
    const thread_lock::guard held(lock_);
    letters_.push_back(std::move(written));
    count_.store(letters_.size(), memory_order_release);
  }
  /// Takes the oldest one in a box.
  bool get(const box& from, control_lane::blob& message) {
    // Who waits looks often, mostly at nothing.
    if (count_.load(memory_order_acquire) == 0) return false;
    const thread_lock::guard held(lock_);
    for (auto found = letters_.begin(); found != letters_.end(); ++found) {
      if (!(found->in == from)) continue;
      message = std::move(found->message);
      letters_.erase(found);
      count_.store(letters_.size(), memory_order_relaxed);
      return true;
    }
    return false;
  }

 private:
  struct letter {
    box in;
    control_lane::blob message;
  };
  thread_lock lock_;
  atomic<std::size_t> count_{0};
  std::vector<letter> letters_;
};

}  // namespace shardkit::detail
