// One communicator of NCCL on one rank: its handle from the first moment to the last, and what stands beside it.
#pragma once

#include <shardkit/backends/detail/nccl_launch.hpp>
#include <shardkit/cuda/device.hpp>
#include <shardkit/cuda/event.hpp>
#include <shardkit/cuda/space.hpp>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace shardkit::detail {

/// Device memory that belongs to a communicator.
struct nccl_memory_release {
  void operator()(void* memory) const noexcept { cuda_space::deallocate(memory); }
};
using nccl_memory = std::unique_ptr<void, nccl_memory_release>;

/// Spreads numbers over all 64 bits, so that what is made of different ones differs (the finaliser of SplitMix64).
constexpr std::uint64_t nccl_scattered(std::uint64_t number) noexcept {
  number += 0x9e3779b97f4a7c15u;
  number = (number ^ number >> 30) * 0xbf58476d1ce4e5b9u;
  number = (number ^ number >> 27) * 0x94d049bb133111ebu;
  return number ^ number >> 31;
}

/// What a group of calls writes down of its messages; kept, so that a steady state allocates nothing.
struct nccl_group_notes {
  struct message {
    std::size_t round;     ///< of the groups of NCCL's that the messages go in
    std::size_t position;  ///< in the list of calls
    bool sends;            ///< else it receives; a send_recv is noted twice
  };
  std::vector<message> messages;
  std::vector<std::size_t> sent, received;  ///< so far, by peer
};

class nccl_state {
 public:
  /// Without a handle yet. `on` may be null: a communicator without a control lane.
  nccl_state(std::shared_ptr<nccl_launch> of, std::shared_ptr<nccl_host> on, bool owned)
      : launch(std::move(of)), api(launch->options.api), host(std::move(on)), exceptions_(std::uncaught_exceptions()) {
    handle_.owned = owned;
    const cuda_device_guard on_device(launch->device);
    word_.reset(cuda_space::allocate(sizeof(int)));
    launch->add(handle_);
  }
  nccl_state(const nccl_state&) = delete;
  nccl_state& operator=(const nccl_state&) = delete;

  /// Collective. Flushes what is enqueued, to the operation deadline; when an exception passes, or after a failure,
  /// everything is aborted instead.
  ~nccl_state() {
    if (handle_.owned && handle() != nullptr) {
      if (std::uncaught_exceptions() > exceptions_) launch->fail("an exception ended one of its NCCL communicators");
      else finish();
    } else if (!handle_.owned && std::uncaught_exceptions() > exceptions_) {
      launch->fail("an exception passed one of its NCCL communicators");
    }
    launch->remove(handle_);
  }

  /// Null once the communicator has been stopped.
  [[gnu::always_inline]] inline ncclComm_t handle() const noexcept {
    return handle_.comm.load(std::memory_order_relaxed);
  }
  /// Throws peer_failed where the communicator has been stopped.
  [[gnu::always_inline]] inline ncclComm_t alive() const {
    const ncclComm_t comm = handle();
    if (comm == nullptr) [[unlikely]]
      throw_stopped();
    return comm;
  }

  /// Joins the ranks that share `id`. Collective, to the init deadline.
  void join(const ncclUniqueId& id, int own_rank, int ranks) {
    rank = own_rank;
    size = ranks;
    ncclConfig_t config = non_blocking();
    const cuda_device_guard on_device(launch->device);
    for (const char part : id.internal) order = nccl_scattered(order ^ static_cast<unsigned char>(part));
    ncclComm_t comm = nullptr;
    const ncclResult_t result = api.comm_init_rank_config(&comm, ranks, id, own_rank, &config);
    appear(comm, result, "ncclCommInitRankConfig");
  }
  /// Becomes this rank's part of a split of `parent`. Collective.
  void split_from(nccl_state& parent, int colour, int key) {
    ncclConfig_t config = non_blocking();
    const ncclComm_t whole = parent.alive();
    const cuda_device_guard on_device(launch->device);
    ncclComm_t comm = nullptr;
    ncclResult_t result = api.comm_split(whole, colour, key, &comm, &config);
    const ncclComm_t early = __atomic_load_n(&comm, __ATOMIC_ACQUIRE);  // NCCL may write it now, or when it is made
    launch->enter(handle_, early);
    try {
      if (result == ncclInProgress)
        result = launch->settle(whole, "ncclCommSplit", launch->options.limits.init, "init");
      if (result != ncclSuccess) launch->raise(result, whole, "ncclCommSplit");
    } catch (...) {
      const ncclComm_t late = __atomic_load_n(&comm, __ATOMIC_ACQUIRE);
      if (early == nullptr && late != nullptr)
        nccl_stop::run(api, launch->device, {late}, launch->options.limits.abort);
      throw;
    }
    appear(comm, result, "ncclCommSplit");
    identify();
    order = nccl_scattered(parent.order + ++parent.splits_ * (std::uint64_t{1} << 32) + static_cast<unsigned>(colour));
  }
  /// Takes or borrows a communicator that somebody else has made. Collective.
  void use(ncclComm_t comm) {
    launch->enter(handle_, comm);
    order = nccl_scattered(host->comm().exchange(reinterpret_cast<std::uintptr_t>(comm)).front());
    conclude(ncclInProgress, comm, "a communicator handed over");
    identify();
    int device = 0;
    check(api.comm_cu_device(comm, &device), "ncclCommCuDevice");
    if (device != launch->device)
      launch->fail_with(usage_error("the NCCL communicator handed over is on device " + std::to_string(device) +
                                    ", and the current device is " + std::to_string(launch->device) +
                                    "; call cudaSetDevice(" + std::to_string(device) + ") first"));
  }

  /// After a call that did not simply succeed: waits until it is enqueued, or throws.
  [[gnu::cold, gnu::noinline]] void conclude(ncclResult_t result, ncclComm_t comm, const char* call) {
    if (result == ncclInProgress) result = launch->settle(comm, call, launch->options.limits.operation, "operation");
    if (result != ncclSuccess) launch->raise(result, comm, call);
  }
  [[gnu::always_inline]] inline void check(ncclResult_t result, const char* call) {
    if (result != ncclSuccess) [[unlikely]]
      conclude(result, alive(), call);
  }

  /// Throws where a peer or the communicator itself has failed beside the calls. Does not wait.
  void look() { look_from(host.get()); }
  /// The same, heard over another host communicator of these ranks; null: NCCL alone is asked.
  void look_from(nccl_host* lane) {
    launch->hear_from(lane);
    const ncclComm_t comm = handle();
    if (comm == nullptr) return;
    const ncclResult_t verdict = launch->ask(comm);
    if (verdict != ncclSuccess && verdict != ncclInProgress)
      launch->raise(verdict, comm, "an operation of a NCCL communicator");
  }

  /// Runs the part of a call beside NCCL: what it throws fails the launch, so that no peer waits for this rank.
  template <class Body>
  void guarded(Body body) {
    try {
      body();
    } catch (const error& failure) {
      launch->fail(failure.message());
      throw;
    }
  }

  /// An element for barriers.
  void* word() const noexcept { return word_.get(); }

  /// Device memory for the length of one call on `on`. Calls on several streams take it in turns.
  template <class Body>
  void with_workspace(at<cuda_space> on, Body body) {
    if (!workspace_) {
      const cuda_device_guard on_device(launch->device);
      workspace_used_.emplace();
      workspace_.reset(cuda_space::allocate(launch->options.workspace_bytes));
    } else {
      workspace_used_->order_before(on);
    }
    body(static_cast<char*>(workspace_.get()));
    workspace_used_->record(on);
  }

  const std::shared_ptr<nccl_launch> launch;
  const nccl_api api;  ///< the functions of the launch once more: a call finds them a step earlier
  const std::shared_ptr<nccl_host> host;
  std::uint64_t order = 0;  ///< the same on all its ranks and of no other communicator: where it stands in a group
  int rank = 0, size = 1;
  ncclResult_t unsettled = ncclSuccess;  ///< of a call that was made plainly and has more to it
  nccl_group_notes notes;

 private:
  static ncclConfig_t non_blocking() noexcept {
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;  // so that no wait is NCCL's own, without a deadline
    return config;
  }

  void appear(ncclComm_t comm, ncclResult_t result, const char* call) {
    if (comm == nullptr && result == ncclSuccess) result = ncclInternalError;
    if (comm == nullptr) launch->raise(result, comm, call);
    launch->enter(handle_, comm);
    result = launch->settle(comm, call, launch->options.limits.init, "init");
    if (result != ncclSuccess) launch->raise(result, comm, call);
  }
  void identify() {
    check(api.comm_user_rank(alive(), &rank), "ncclCommUserRank");
    check(api.comm_count(alive(), &size), "ncclCommCount");
    if (host && (host->comm().rank() != rank || host->comm().size() != size))
      launch->fail_with(usage_error("the NCCL communicator says that this is rank " + std::to_string(rank) + " of " +
                                    std::to_string(size) + ", its host communicator " +
                                    std::to_string(host->comm().rank()) + " of " + std::to_string(host->comm().size()) +
                                    "; the ranks of both have to be the same"));
  }

  [[noreturn, gnu::cold, gnu::noinline]] void throw_stopped() const { launch->throw_failure(); }

  void finish() noexcept {
    try {
      const ncclComm_t comm = alive();
      check(api.comm_finalize(comm), "ncclCommFinalize");
      const ncclComm_t last = handle_.comm.exchange(nullptr);
      if (last == nullptr) return;
      const ncclResult_t result = api.comm_destroy(last);
      if (result != ncclSuccess)
        std::fprintf(stderr, "shardkit: ncclCommDestroy failed: %s\n", api.get_error_string(result));
    } catch (const std::exception& failure) {
      launch->fail(failure.what());
      std::fprintf(stderr, "%s\n", failure.what());
    }
  }

  nccl_handle handle_;
  const int exceptions_;
  std::uint64_t splits_ = 0;
  nccl_memory word_, workspace_;
  std::optional<cuda_event> workspace_used_;
};

}  // namespace shardkit::detail
