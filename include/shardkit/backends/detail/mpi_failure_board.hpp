// The first failure of a launch, where the processes of one node can read it: in memory that they share.
#pragma once

#include <shardkit/core/detail/atomic.hpp>
#include <shardkit/core/error.hpp>

#include <cstdio>
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
    return phase == being_written || phase == published;
  }

  /// Records that world rank `culprit` failed. The first report counts; later ones are ignored.
  void publish(int culprit, const char* reason) noexcept {
    int none = none_yet;
    if (!phase_.compare_exchange_strong(none, being_written)) return;
    culprit_ = culprit;
    std::snprintf(reason_, sizeof reason_, "%s", reason);
    phase_.store(published, memory_order_release);
  }
  /// From now on calls are refused because MPI has ended.
  void close() noexcept {
    int none = none_yet;
    phase_.compare_exchange_strong(none, closed);
  }

  /// World rank of the culprit; -1 where it vanished while it was writing.
  int culprit() const noexcept { return readable() ? culprit_ : -1; }
  const char* reason() const noexcept { return readable() ? reason_ : "(unknown)"; }

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
  enum : int { none_yet, being_written, published, closed };

  // The writer needs microseconds between its two steps; a reader gives it a second.
  bool readable() const noexcept {
    for (int wait = 0; wait < 1000 && phase_.load(memory_order_acquire) == being_written; ++wait) ::usleep(1000);
    return phase_.load(memory_order_acquire) == published;
  }

  atomic<int> phase_{none_yet};
  atomic<int> departed_{0}, departed_elsewhere_{0};
  int culprit_ = -1;
  char reason_[1000] = {};
  mpi_notice question_, answer_;
};

}  // namespace shardkit::detail
