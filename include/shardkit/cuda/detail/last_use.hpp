// When pinned memory, through which elements travel to or from a device, can be used again.
#pragma once

#include <shardkit/core/detail/waiting.hpp>
#include <shardkit/cuda/event.hpp>

namespace shardkit::detail {

/// The end of the last copy from or to some memory.
class last_use {
 public:
  /// Whether the host may use the memory: the copy is done.
  bool over(const call_site& site) {
    if (busy_ && end_.reached(site)) busy_ = false;
    return !busy_;
  }
  /// What is enqueued on the stream from now on runs after the copy.
  void order_before(at<cuda_space> where) {
    if (busy_) end_.order_before(where);
  }
  /// The last copy is what the stream holds now.
  void set(at<cuda_space> where) {
    end_.record(where);
    busy_ = true;
  }
  /// Waits, at most so many seconds.
  bool wait(double seconds, const call_site& site) {
    constexpr int spins = 1000;
    // Captures written out: left to the compiler, nvcc and GCC order them differently, and objects of both are linked.
    return wait_for(
               spins, seconds, [this, &site] { return over(site); }, [] { return false; }) == wait_result::ready;
  }
  /// The same before the memory is freed. Where this is false the device is broken or stuck, and the memory has to
  /// stay.
  bool wait_before_freeing(double seconds) noexcept {
    try {
      return wait(seconds, {});
    } catch (const error&) {
      return false;
    }
  }

 private:
  cuda_event end_;
  bool busy_ = false;
};

}  // namespace shardkit::detail
