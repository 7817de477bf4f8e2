// Whether the cores of thread ranks are so far apart that what a peer reads straight from a rank's cache comes slowly.
// Through memory that the ranks write in turn it comes several times as fast there (thread_room::box tells why);
// between cores that are near that would only be one more copy. Both happen on one machine, so it is measured while
// running.
#pragma once

#include <shardkit/backends/detail/thread_copies.hpp>
#include <shardkit/core/detail/waiting.hpp>

#include <cstddef>

/// A peer from whom less than this is read per second counts as far. Far cores give 2e9; near ones, and far ones by way
/// of memory written in turn, 12e9 and more, where caches hold what is read. Of what they cannot hold near cores give
/// 5e9 and more: half of this counts then.
#ifndef SHARDKIT_FAR_BYTES_PER_SECOND
#define SHARDKIT_FAR_BYTES_PER_SECOND 6e9
#endif

namespace shardkit::detail {

/// What one rank knows of its distance to the others. Ranks that disagree are slower, not wrong: each shows the memory
/// that the others are to read. They agree soon, because each also shows for how long it means to stage: what a rank
/// reads slowly is for its peers to stage.
class thread_distance {
 public:
  /// Reads `bytes` of the peers by `read()`, and learns from the time that takes.
  template <class Read>
  void measure(std::size_t bytes, Read read) {
    if (bytes < least_measured) return read();
    const double start = now_seconds();
    read();
    learn(bytes, now_seconds() - start);
  }

  /// A read of so much has taken so long.
  [[gnu::noinline]] void learn(std::size_t bytes, double seconds) noexcept {
    const double far = bytes <= most_in_caches ? SHARDKIT_FAR_BYTES_PER_SECOND : SHARDKIT_FAR_BYTES_PER_SECOND / 2;
    const bool is_slow = static_cast<double>(bytes) < far * seconds;
    slow_reads_ = is_slow ? slow_reads_ + 1 : 0;
    // Once can be chance: a rank may lose its core for a moment.
    if (slow_reads_ < 2) return;
    slow_reads_ = 0;
    staged_calls_ = calls_until_next_look;
  }

  /// Whether the next call should show its data in other memory than the caller's.
  bool stages_next() noexcept {
    if (staged_calls_ == 0) return false;
    --staged_calls_;
    return true;
  }

  int staged_calls() const noexcept { return staged_calls_; }
  void hear(int staged_calls_of_peer) noexcept {
    if (staged_calls_ < staged_calls_of_peer) staged_calls_ = staged_calls_of_peer;
  }

 private:
  static constexpr std::size_t least_measured = 128 << 10, most_in_caches = 2 << 20;
  static constexpr int calls_until_next_look = 128;

  int slow_reads_ = 0, staged_calls_ = 0;
};

}  // namespace shardkit::detail
