// A thread that looks after a NCCL communicator while its rank is busy elsewhere, or waits in a call of CUDA's own that
// knows no deadline. Opt-in: `synchronize` does the same without a thread.
#pragma once

#include <shardkit/backends/nccl.hpp>

#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>

namespace shardkit {

/// Asks every so many seconds whether NCCL reports an error beside the calls, or a peer has failed; then aborts all
/// NCCL communicators of the launch, which ends what is in flight, so that a cudaStreamSynchronize of the rank returns.
/// The rank's next call throws what was found. Destroyed before the communicator's launch ends, in any order with the
/// communicator itself.
///
/// It hears of peers over a host communicator of its own, made from that of `comm`: collective, and over MPI it needs
/// MPI_THREAD_MULTIPLE. While it aborts, its rank must not be inside a function of NCCL's for these communicators, but
/// may wait in a call of the library for what NCCL does. With a library from 2.28.9 on they are revoked first, which
/// NCCL allows at any time.
class nccl_watchdog {
 public:
  explicit nccl_watchdog(nccl_communicator& comm, double every = 0.1, call_site site = call_site::current())
      : state_(comm.backend().state()), every_(every) {
    if (!(every > 0))
      throw usage_error("nccl_watchdog: every " + std::to_string(every) + " seconds; it has to be positive");
    if (state_->host)
      lane_ = std::make_unique<detail::nccl_host>(state_->host->comm().split(0, state_->rank, "watchdog", {{}, site}));
    thread_ = std::thread([this] { watch(); });
  }
  nccl_watchdog(const nccl_watchdog&) = delete;
  nccl_watchdog& operator=(const nccl_watchdog&) = delete;
  ~nccl_watchdog() {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      stopping_ = true;
    }
    wake_.notify_all();
    thread_.join();
  }

 private:
  void watch() noexcept {
    std::unique_lock<std::mutex> lock(mutex_);
    const std::chrono::duration<double> pause(every_);
    while (!wake_.wait_for(lock, pause, [&, this] { return stopping_; })) {
      if (state_->launch->failed()) return;
      try {
        state_->look_from(lane_.get());
      } catch (const error&) {
        return;  // everything is stopped; the rank's next call tells why
      }
    }
  }

  const std::shared_ptr<detail::nccl_state> state_;
  const double every_;
  std::unique_ptr<detail::nccl_host> lane_;
  std::mutex mutex_;
  std::condition_variable wake_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace shardkit
