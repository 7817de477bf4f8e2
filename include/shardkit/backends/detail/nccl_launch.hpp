// What the communicators of one rank share that came from one another by split: NCCL's functions, the deadlines, the
// lane on which failures travel, and the one moment in which all of them are stopped.
#pragma once

#include <shardkit/backends/detail/nccl_error.hpp>
#include <shardkit/backends/detail/nccl_stop.hpp>
#include <shardkit/backends/nccl_options.hpp>
#include <shardkit/comm/any_communicator.hpp>

#include <algorithm>
#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace shardkit::detail {

/// The host communicator that a NCCL communicator stands on: the same ranks in the same order.
class nccl_host {
 public:
  /// Collective: the control lane may have to be made.
  explicit nccl_host(any_communicator<host_space> comm) : comm_(std::move(comm)), lane_(comm_.backend().control()) {}

  any_communicator<host_space>& comm() noexcept { return comm_; }
  control_lane& lane() noexcept { return lane_; }
  /// Throws peer_failed where the launch has failed.
  void hear() {
    control_lane::blob none;
    (void)lane_.poll(lane_.rank(), control_topic::transport, none);
  }

 private:
  any_communicator<host_space> comm_;
  control_lane& lane_;
};

/// A communicator's handle, which is taken away once, by whoever ends it.
struct nccl_handle {
  std::atomic<ncclComm_t> comm{nullptr};  ///< null: it has ended, and nobody may touch it
  bool owned = true;                      ///< else it is never aborted or destroyed
};

// What stands in the table for a call that the library lacks, so that an ordinary call need not ask: it fails, and the
// backend composes.
inline ncclResult_t nccl_lacks_rooted(const void*, void*, std::size_t, ncclDataType_t, int, ncclComm_t, cudaStream_t) {
  return ncclInvalidUsage;
}
inline ncclResult_t nccl_lacks_all_to_all(const void*, void*, std::size_t, ncclDataType_t, ncclComm_t, cudaStream_t) {
  return ncclInvalidUsage;
}

class nccl_launch {
 public:
  /// `host` may be null: then failures of peers show by deadlines only.
  nccl_launch(const nccl_options& given, int on_device, int own_rank, std::shared_ptr<nccl_host> on_host)
      : options(usable(given)),
        device(on_device),
        version(options.api.version()),
        rank_(own_rank),
        host_(std::move(on_host)) {}
  nccl_launch(const nccl_launch&) = delete;
  nccl_launch& operator=(const nccl_launch&) = delete;
  ~nccl_launch() = default;

  const nccl_options options;  ///< with stand-ins for calls of 2.28 that the library lacks
  const int device;
  const int version;  ///< NCCL_VERSION_CODE of the library

  void add(nccl_handle& handle) {
    const std::lock_guard<std::mutex> lock(mutex_);
    handles_.push_back(&handle);
  }
  void remove(nccl_handle& handle) noexcept {
    const std::lock_guard<std::mutex> lock(mutex_);
    handles_.erase(std::remove(handles_.begin(), handles_.end(), &handle), handles_.end());
  }

  /// Enters a communicator that NCCL has begun to make; after a failure, which it has missed, it is stopped at once.
  void enter(nccl_handle& handle, ncclComm_t comm) {
    if (comm == nullptr) return;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (!failure_) return handle.comm.store(comm);
    }
    nccl_stop::run(options.api, device, {comm}, options.limits.abort);
    throw_failure();
  }

  bool failed() const noexcept { return failed_.load(std::memory_order_acquire); }
  /// Valid once failed() is true.
  [[noreturn]] void throw_failure() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    throw peer_failed(*failure_);
  }

  /// Asks whether a peer has failed; then stops all communicators and throws peer_failed.
  void hear() { hear_from(host_.get()); }
  void hear_from(nccl_host* lane) {
    if (failed()) throw_failure();
    if (lane == nullptr) return;
    try {
      lane->hear();
    } catch (const peer_failed& failure) {
      stop(failure);
      throw;
    }
  }
  /// The same for so many seconds: before an error is told that may be the consequence of a peer's.
  void hear_for(double seconds) {
    if (host_)
      (void)wait_for(
          20, seconds, [] { return false; },
          [&, this] {
            hear();
            return false;
          });
  }

  /// This rank has failed: told to the peers, then everything is stopped. The first failure counts.
  void fail(const std::string& reason) noexcept {
    if (failed()) return;
    try {
      if (host_) {
        host_->comm().fail(reason);
        host_->hear();
      }
      stop(peer_failed(rank_, reason));
    } catch (const peer_failed& first) {
      stop(first);
    } catch (...) {
      stop(peer_failed(rank_, "out of memory"));
    }
  }
  template <class Error>
  [[noreturn]] void fail_with(const Error& failure) {
    fail(failure.message());
    throw Error(failure);
  }

  /// NCCL's verdict on a communicator. Throws the failure where another thread has stopped them meanwhile: they may be
  /// touched no more then.
  ncclResult_t ask(ncclComm_t comm) const {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (failure_) throw peer_failed(*failure_);
    ncclResult_t verdict = ncclInProgress;
    const ncclResult_t asked = options.api.comm_get_async_error(comm, &verdict);
    return asked == ncclSuccess ? verdict : asked;
  }

  /// Waits until a non-blocking call on `comm` has done its part. Returns NCCL's verdict on the communicator; throws
  /// timeout_error after `seconds` and peer_failed where a peer fails meanwhile.
  ncclResult_t settle(ncclComm_t comm, const char* call, double seconds, const char* deadline) {
    ncclResult_t verdict = ncclInProgress;
    const auto settled = [&, this] {
      verdict = ask(comm);
      return verdict != ncclInProgress;
    };
    constexpr int spins = 100;
    if (wait_for(spins, seconds, settled, [&, this] {
          hear();
          return false;
        }) == wait_result::ready)
      return verdict;
    fail_with(timeout_error(std::string(call) + " was still under way at the " + deadline + " deadline of " +
                            std::to_string(seconds) + " s: a rank has not made its part of it, or cannot be reached"));
  }

  /// Throws what a result other than success means; a peer's failure where that is the cause.
  [[noreturn, gnu::cold]] void raise(ncclResult_t code, ncclComm_t comm, const std::string& call) {
    const nccl_error failure(options.api, code, comm, call);
    if (code == ncclRemoteError || code == ncclSystemError || code == ncclInternalError)
      hear_for(std::min(options.limits.abort / 10, 0.5));
    fail_with(failure);
  }

 private:
  static nccl_options usable(nccl_options given) {
    const bool old = given.api.version() < 22800;
    if (old || given.api.gather == nullptr) given.api.gather = &nccl_lacks_rooted;
    if (old || given.api.scatter == nullptr) given.api.scatter = &nccl_lacks_rooted;
    if (old || given.api.all_to_all == nullptr) given.api.all_to_all = &nccl_lacks_all_to_all;
    return given;
  }

  void stop(const peer_failed& failure) noexcept {
    std::vector<ncclComm_t> owned;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (failure_) return;
      failure_.emplace(failure);
      failed_.store(true, std::memory_order_release);
      for (nccl_handle* handle : handles_) {
        const ncclComm_t comm = handle->comm.exchange(nullptr);
        if (comm != nullptr && handle->owned) owned.push_back(comm);
      }
    }
    nccl_stop::run(options.api, device, std::move(owned), options.limits.abort);
  }

  const int rank_;
  const std::shared_ptr<nccl_host> host_;
  mutable std::mutex mutex_;
  std::atomic<bool> failed_{false};
  std::optional<peer_failed> failure_;
  std::vector<nccl_handle*> handles_;
};

}  // namespace shardkit::detail
