// A bootstrap from two functions that the engine already has: its own store, another framework's collectives.
#pragma once

#include <shardkit/launch/detail/bootstrap_errors.hpp>

#include <functional>
#include <utility>

namespace shardkit {

/// `broadcast` and `barrier` do what those of `bootstrap` do, deadline included.
class callback_bootstrap final : public bootstrap {
 public:
  callback_bootstrap(int rank, int size, std::function<blob(const blob&)> broadcast, std::function<void()> barrier)
      : rank_(rank), size_(size), broadcast_(std::move(broadcast)), barrier_(std::move(barrier)) {
    detail::require_bootstrap_rank(rank, size);
    if (!broadcast_ || !barrier_) throw usage_error("callback_bootstrap: both functions are needed");
  }

  int rank() const noexcept override { return rank_; }
  int size() const noexcept override { return size_; }
  blob broadcast(const blob& from_rank_0) override {
    if (rank_ == 0) detail::require_bootstrap_length(from_rank_0.size());
    return broadcast_(from_rank_0);
  }
  void barrier() override { barrier_(); }

 private:
  int rank_, size_;
  std::function<blob(const blob&)> broadcast_;
  std::function<void()> barrier_;
};

}  // namespace shardkit
