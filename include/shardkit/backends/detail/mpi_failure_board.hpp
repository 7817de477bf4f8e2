// The first failure of a launch, where the processes of one node can read it: in memory that they share.
#pragma once

#include <shardkit/comm/detail/first_failure.hpp>

#include <cstdio>

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

/// Lies in shared memory. Culprits are world ranks.
class mpi_failure_board : public first_failure {
 public:
  /// What a call throws that finds the board not clear: closed since MPI has ended, or failed.
  [[noreturn, gnu::cold, gnu::noinline]] void throw_failure() const {
    if (is_closed()) throw usage_error("the mpi_environment has ended; its communicators can only be destroyed now");
    first_failure::throw_failure();
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
  atomic<int> departed_{0}, departed_elsewhere_{0};
  mpi_notice question_, answer_;
};

}  // namespace shardkit::detail
