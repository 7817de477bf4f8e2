// Runs a function on n thread ranks of this process: no launcher, no MPI, no device.
#pragma once

#include <shardkit/backends/threads.hpp>
#include <shardkit/launch/detail/cpu_sets.hpp>

#include <cstdio>
#include <exception>
#include <functional>
#include <mutex>
#include <numeric>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace shardkit {

/// Where the threads of the ranks may run.
enum class pinning {
  none,        ///< wherever the calling thread may
  cores,       ///< each on one processor, on cores of their own as far as there are so many
  numa_nodes,  ///< each on the processors of one NUMA node, next to its neighbours in rank
};

/// How run_ranks starts its ranks.
struct launch_options {
  deadlines limits;  ///< of every wait in the launch
  /// Only processors that the calling thread may use are given out.
  pinning pin = pinning::none;
  /// Called on each rank's thread before the function, already pinned: to set the number of threads that a BLAS uses
  /// for this rank. What it throws fails the rank.
  std::function<void(int rank, int size)> on_rank_start = {};
  /// Told, on the calling thread, which rank failed first and why, before run_ranks rethrows. By default one line on
  /// standard error.
  std::function<void(int rank, const char* reason)> on_failure = [](int rank, const char* reason) {
    std::fprintf(stderr, "shardkit: rank %d failed first: %s\n", rank, reason);
  };
};

namespace detail {

/// The first exception that is a cause, not the consequence of a peer's failure. Keeps it without allocating, which
/// may be what has failed.
class first_cause {
 public:
  /// Called in a catch block.
  void record(int rank, launch_state& launch) noexcept {
    try {
      throw;
    } catch (const peer_failed& failure) {
      keep(rank, failure.what(), true, launch);
    } catch (const std::exception& failure) {
      keep(rank, failure.what(), false, launch);
    } catch (...) {
      keep(rank, "unknown exception", false, launch);
    }
  }

  void rethrow(const launch_options& options) const {
    if (!exception_) return;
    if (options.on_failure) options.on_failure(rank_, reason_);
    std::rethrow_exception(exception_);
  }

 private:
  void keep(int rank, const char* reason, bool consequence, launch_state& launch) noexcept {
    launch.publish_own(rank, reason);
    const std::lock_guard<std::mutex> lock(mutex_);
    // The culprit's own exception is the cause, whoever was first to get here.
    const int importance = consequence ? 1 : launch.culprit() == rank ? 3 : 2;
    if (importance <= importance_) return;
    importance_ = importance;
    rank_ = consequence ? launch.culprit() : rank;
    std::snprintf(reason_, sizeof reason_, "%s", reason);
    exception_ = std::current_exception();
  }

  std::mutex mutex_;
  int importance_ = 0;
  int rank_ = -1;
  char reason_[1024] = {};
  std::exception_ptr exception_;
};

}  // namespace detail

/// Calls `function(comm)` on `size` threads, each with its rank's thread_communicator&, and joins them. Where ranks
/// throw, the others' calls throw peer_failed, and the first cause is rethrown with its own type. A rank that returns
/// while others still wait for it has failed, too. Where ranks end after different calls, or drop a request at the end,
/// this throws peer_failed with what they did.
template <class Function>
void run_ranks(int size, const launch_options& options, Function&& function) {
  static_assert(
      std::is_invocable<Function&, thread_communicator&>::value,
      "shardkit: run_ranks calls its function with a thread_communicator&; take it as [](auto& comm) { ... }");
  if (size < 1) throw usage_error("run_ranks: " + std::to_string(size) + " ranks; at least 1 is needed");
  require_valid(options.limits);
  const auto launch = detail::shared<detail::thread_launch>::make(size, options.limits);
  detail::list<int> ranks(static_cast<std::size_t>(size));
  std::iota(ranks.begin(), ranks.end(), 0);
  const auto room = detail::shared<detail::thread_room>::make(launch, std::move(ranks));
  detail::first_cause cause;
  std::vector<detail::cpu_list> places;
  if (options.pin == pinning::cores) places = detail::one_cpu_each(size, detail::allowed_cpus(), "/sys/devices/system");
  if (options.pin == pinning::numa_nodes)
    places = detail::one_node_each(size, detail::allowed_cpus(), "/sys/devices/system");

  const auto run = [&](int rank) {
    try {
      if (!places.empty()) detail::run_on(places[static_cast<std::size_t>(rank)]);
      if (options.on_rank_start) options.on_rank_start(rank, size);
      {
        thread_communicator comm(thread_backend(room, rank));
        function(comm);
      }
      if (launch->left_to_caller()) launch->throw_failure();
    } catch (...) {
      cause.record(rank, *launch);
    }
    launch->leave(rank);
  };

  std::vector<std::thread> threads;
  threads.reserve(static_cast<std::size_t>(size));
  try {
    for (int rank = 0; rank < size; ++rank) threads.emplace_back(run, rank);
  } catch (...) {
    // The ranks that did start must not wait for one that cannot.
    cause.record(static_cast<int>(threads.size()), *launch);
  }
  for (auto& thread : threads) thread.join();
  cause.rethrow(options);
}

/// The same with the default options.
template <class Function>
void run_ranks(int size, Function&& function) {
  run_ranks(size, launch_options{}, std::forward<Function>(function));
}

}  // namespace shardkit
