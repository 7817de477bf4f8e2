// A bootstrap between threads of one process that are not thread ranks: an engine's own threads, one for each device.
//
//   thread_meeting_place place(4);
//   ... on each thread:  thread_bootstrap start(place, rank);
#pragma once

#include <shardkit/comm/deadlines.hpp>
#include <shardkit/launch/detail/bootstrap_errors.hpp>

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <mutex>
#include <string>
#include <vector>

namespace shardkit {

/// Shared by the threads; outlives their bootstraps.
class thread_meeting_place {
 public:
  explicit thread_meeting_place(int size, const deadlines& limits = {})
      : limits_(limits), taken_(static_cast<std::size_t>(size < 1 ? 0 : size)), arrived_(taken_) {
    detail::require_bootstrap_rank(0, size);
    require_valid(limits);
  }

  int size() const noexcept { return static_cast<int>(taken_.size()); }

 private:
  friend class thread_bootstrap;

  void take(int rank) {
    detail::require_bootstrap_rank(rank, size());
    const std::lock_guard<std::mutex> lock(mutex_);
    if (taken_[static_cast<std::size_t>(rank)])
      throw usage_error("thread_bootstrap: two threads say that they are rank " + std::to_string(rank) +
                        "; give each thread a rank of its own");
    taken_[static_cast<std::size_t>(rank)] = true;
  }

  /// Returns after all have come; rank 0 leaves its blob for the others.
  bootstrap::blob meet(int rank, const bootstrap::blob* given) {
    std::unique_lock<std::mutex> lock(mutex_);
    if (!failure_.empty()) throw timeout_error(failure_);
    if (rank == 0 && given != nullptr) blob_ = *given;
    const std::size_t round = round_;
    arrived_[static_cast<std::size_t>(rank)] = true;
    if (++present_ == size()) {
      present_ = 0;
      arrived_.assign(arrived_.size(), false);
      ++round_;
      handed_ = blob_;
      changed_.notify_all();
      return handed_;
    }
    const auto met = [&, this] { return round_ != round || !failure_.empty(); };
    // Never longer than a century at a time, which the clock can count.
    constexpr double longest = 3e9;
    const std::chrono::duration<double> seconds(limits_.init < longest ? limits_.init : longest);
    if (!changed_.wait_for(lock, seconds, met)) {
      std::vector<int> missing;
      for (std::size_t r = 0; r < arrived_.size(); ++r)
        if (!arrived_[r]) missing.push_back(static_cast<int>(r));
      failure_ = detail::absent_ranks(missing, size(), limits_.init);
      changed_.notify_all();
    }
    if (round_ == round) throw timeout_error(failure_);
    return handed_;
  }

  const deadlines limits_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<bool> taken_, arrived_;
  int present_ = 0;
  std::size_t round_ = 0;
  bootstrap::blob blob_;
  bootstrap::blob handed_;  // of the last round: a fast rank 0 may already have left its next one
  std::string failure_;
};

/// One thread's end.
class thread_bootstrap final : public bootstrap {
 public:
  thread_bootstrap(thread_meeting_place& place, int rank) : place_(place), rank_(rank) { place.take(rank); }

  int rank() const noexcept override { return rank_; }
  int size() const noexcept override { return place_.size(); }
  blob broadcast(const blob& from_rank_0) override {
    if (rank_ == 0) detail::require_bootstrap_length(from_rank_0.size());
    return place_.meet(rank_, &from_rank_0);
  }
  void barrier() override { place_.meet(rank_, nullptr); }

 private:
  thread_meeting_place& place_;
  const int rank_;
};

}  // namespace shardkit
