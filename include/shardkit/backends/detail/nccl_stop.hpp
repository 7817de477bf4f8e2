// How communicators are ended by force: all of them are stopped before anything of them is freed, because freeing waits
// for the device, and the device for whichever is not stopped yet.
#pragma once

#include <shardkit/backends/nccl_api.hpp>
#include <shardkit/core/detail/waiting.hpp>

#include <cuda_runtime_api.h>

#include <atomic>
#include <cstddef>
#include <cstdio>
#include <memory>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

namespace shardkit::detail {

/// The communicators of one rank that are to be ended, and how far that has come.
class nccl_stop {
 public:
  nccl_stop(const nccl_api& api, int device, std::vector<ncclComm_t> comms, double seconds)
      : api_(api), device_(device), comms_(std::move(comms)), seconds_(seconds) {}

  /// Ends them, in a thread of its own, because NCCL's abort can hang itself. After the abort deadline that thread is
  /// left behind, and with it what it could not free.
  static void run(const nccl_api& api, int device, std::vector<ncclComm_t> comms, double seconds) noexcept {
    if (comms.empty()) return;
    const std::size_t count = comms.size();
    try {
      const auto work = std::make_shared<nccl_stop>(api, device, std::move(comms), seconds);
      std::thread helper([work] { work->stop(); });
      const auto over = [&] { return work->over_.load(std::memory_order_acquire); };
      if (wait_for(20, seconds, over, [] { return false; }) == wait_result::ready) return helper.join();
      helper.detach();
      std::fprintf(stderr, "shardkit: %zu NCCL communicators were not aborted within %g s; they are left behind\n",
                   count, seconds);
    } catch (const std::exception& failure) {
      std::fprintf(stderr, "shardkit: %zu NCCL communicators are left behind: %s\n", count, failure.what());
    }
  }

 private:
  void stop() noexcept {
    (void)cudaSetDevice(device_);  // the current device is this thread's own
    if (api_.comm_revoke != nullptr) revoke();
    // In a group the flags that make kernels leave are all set before the first communicator is freed.
    if (comms_.size() > 1) (void)api_.group_start();
    for (ncclComm_t comm : comms_) (void)api_.comm_abort(comm);
    if (comms_.size() > 1) (void)api_.group_end();
    over_.store(true, std::memory_order_release);
  }

  /// Revoking stops what is in flight and frees nothing.
  void revoke() noexcept {
    for (ncclComm_t comm : comms_) (void)api_.comm_revoke(comm, 0);
    const auto quiet = [&, this] {
      for (ncclComm_t comm : comms_) {
        ncclResult_t state = ncclSuccess;
        if (api_.comm_get_async_error(comm, &state) == ncclSuccess && state == ncclInProgress) return false;
      }
      return true;
    };
    (void)wait_for(20, seconds_ / 2, quiet, [] { return false; });
  }

  const nccl_api api_;
  const int device_;
  const std::vector<ncclComm_t> comms_;
  const double seconds_;
  std::atomic<bool> over_{false};
};

}  // namespace shardkit::detail
