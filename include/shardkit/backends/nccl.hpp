// NCCL as a backend: communicators over the GPUs of one process (a thread rank for each), of many processes, or of a
// single rank. A NCCL communicator stands on a host communicator of the same ranks, which carries its id, its metadata
// and its failures:
//
//   run_ranks(4, [](thread_communicator& threads) {        // or mpi_environment::world(), tcp_environment::world()
//     cudaSetDevice(threads.rank());
//     auto world = nccl_world(threads);
//     world.all_reduce(in_place(gradients), sum, stream);  // enqueued on the stream, which is never waited for
//     synchronize(stream, 60, world);                      // waits, with an eye on peers and on NCCL
//   });
#pragma once

#include <shardkit/backends/detail/nccl_lowering.hpp>
#include <shardkit/backends/self.hpp>
#include <shardkit/comm/bootstrap.hpp>
#include <shardkit/comm/communicator.hpp>
#include <shardkit/cuda/fork.hpp>
#include <shardkit/cuda/stream.hpp>
#include <shardkit/cuda/synchronize.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace shardkit {

/// A communicator of NCCL. Made by nccl_world, nccl_adopt, nccl_borrow and by split.
///
/// Calls are enqueued on their stream and take effect in its order; nothing waits for the device. What the host does
/// wait for (that a communicator is made, that NCCL has connected and enqueued) ends at the deadlines of the options.
/// Sums, products and averages, everything of integers but bit operations, and everything that only moves elements is
/// NCCL's own; the rest needs nccl_options::ordered_reduce. NCCL sums 16-bit floats with roundings between ranks, and
/// divides the elements of an average before it sums them; by_rank does neither.
///
/// A message waits on its stream until its peer takes it, and the next call of the communicator behind it: what has to
/// progress together goes into a group or a send_recv. A group runs its messages first, then its collectives.
///
/// When a rank fails, all NCCL communicators of its launch are aborted, once, before its call throws. The others learn
/// of it from the host communicator: in `synchronize`, and in calls that have to wait. Communicators are destroyed
/// collectively, in the same order on all ranks, and after the graphs that hold their calls: NCCL waits for those.
class nccl_backend {
 public:
  using space = cuda_space;

  explicit nccl_backend(std::shared_ptr<detail::nccl_state> state) noexcept : state_(std::move(state)) {}

  int rank() const noexcept { return state_->rank; }
  int size() const noexcept { return state_->size; }
  /// For calls of NCCL's own; null after a failure.
  ncclComm_t native_handle() const noexcept { return state_->handle(); }
  /// NCCL_VERSION_CODE of the library in use.
  int version() const noexcept { return state_->launch->version; }

  /// The ordinary case of a verb that is one call of NCCL's; see comm/backend.hpp.
  template <class Call>
  [[gnu::always_inline]] inline auto perform_plainly(const Call& call) noexcept
      -> std::enable_if_t<detail::nccl_has<Call>::value || detail::nccl_may_have<Call>::value, bool> {
    detail::nccl_state& state = *state_;
    const ncclComm_t comm = state.handle();
    if (!detail::nccl_suffices(state, comm, call)) return false;
    ncclResult_t result;
    if constexpr (detail::nccl_has<Call>::value) result = detail::nccl_enqueue(state, comm, call);
    else result = detail::nccl_enqueue_native(state, comm, call);
    if (result == ncclSuccess) return true;
    state.unsettled = result;
    return false;
  }
  /// The same with everything that may come up.
  template <class Call>
  auto perform(const Call& call) -> std::enable_if_t<detail::nccl_has<Call>::value> {
    detail::nccl_state& state = *state_;
    const ncclComm_t comm = state.alive();
    const ncclResult_t plain = std::exchange(state.unsettled, ncclSuccess);
    if (plain != ncclSuccess) return state.conclude(plain, comm, Call::name);
    if constexpr (detail::nccl_combines<Call>) {
      if (!detail::nccl_combines_natively(state, call.type, call.op)) return composed(call);
    }
    if (detail::nccl_is_empty(call)) return;
    if constexpr (std::is_same_v<Call, send_call> || std::is_same_v<Call, recv_call>) {
      if (call.peer == state.rank) refuse_message_to_oneself(Call::name);
    }
    state.check(detail::nccl_enqueue(state, comm, call), Call::name);
  }
  /// Every other verb.
  template <class Call>
  auto perform(const Call& call)
      -> std::enable_if_t<!detail::nccl_has<Call>::value,
                          decltype(detail::nccl_run_composed(std::declval<detail::nccl_state&>(), call))> {
    const ncclResult_t plain = std::exchange(state_->unsettled, ncclSuccess);
    if constexpr (detail::nccl_may_have<Call>::value)
      if (plain != ncclSuccess && detail::nccl_has_native(*state_, call))
        return state_->conclude(plain, state_->alive(), Call::name);
    composed(call);
  }
  void perform(const group_call& group) {
    (void)state_->alive();
    state_->guarded([&, this] { detail::nccl_run_group(*state_, group); });
  }

  /// The same: a call is under way on its stream when it returns. The typed face adds the second stream of a fork.
  template <class Call>
  auto start(const Call& call) -> decltype(std::declval<nccl_backend&>().perform(call), request()) {
    perform(call);
    return {};
  }

  /// Waits until NCCL has made the new communicator.
  nccl_backend split(int colour, int key, const call_site& site) {
    (void)state_->alive();
    std::shared_ptr<detail::nccl_state> part;
    state_->guarded([&, this] {
      std::shared_ptr<detail::nccl_host> host;
      if (state_->host)
        host = std::make_shared<detail::nccl_host>(state_->host->comm().split(colour, key, {}, {{}, site}));
      part = std::make_shared<detail::nccl_state>(state_->launch, std::move(host), true);
      part->split_from(*state_, colour, key);
    });
    return nccl_backend(std::move(part));
  }

  /// Over the host communicator.
  void exchange(const void* in, void* out, std::size_t bytes, const call_site& site) {
    require_host("exchange").comm().backend().exchange(in, out, bytes, site);
  }
  control_lane& control() { return require_host("control").lane(); }

  /// Tells the peers, and aborts every communicator of the launch on this rank.
  void fail(const std::string& reason) noexcept { state_->launch->fail(reason); }
  /// Throws where a peer has failed or NCCL reports an error beside the calls; all communicators are stopped then. Does
  /// not wait. `synchronize` (cuda/synchronize.hpp) asks this while it waits for a stream.
  void throw_if_failed(const call_site& = {}) { state_->look(); }

  /// A GPU works off what it is given one by one: all ranks enqueue the communicators of a group in one order.
  std::uint64_t group_order() const noexcept { return state_->order; }

  /// What NCCL is asked to do for a call.
  template <class Call>
  nccl_lowering lowering(const Call& call) const {
    return detail::nccl_lowering_of(*state_, call);
  }

  /// For what stands on the same communicator: registrations, watchdogs.
  const std::shared_ptr<detail::nccl_state>& state() const noexcept { return state_; }

 private:
  template <class Call>
  void composed(const Call& call) {
    (void)state_->alive();
    state_->guarded([&, this] { detail::nccl_run_composed(*state_, call); });
  }
  [[noreturn, gnu::cold, gnu::noinline]] void refuse_message_to_oneself(const char* verb) {
    state_->launch->fail_with(usage_error(
        std::string(verb) +
        " with this rank itself as the peer waits for ever on NCCL; use send_recv, or put both sides into a group"));
  }
  detail::nccl_host& require_host(const char* what) {
    if (!state_->host)
      throw unsupported_error(std::string(what) +
                              " needs a host communicator, and this NCCL communicator was made from a bootstrap alone; "
                              "make it from a communicator of threads, MPI or TCP: nccl_world(host)");
    return *state_->host;
  }

  std::shared_ptr<detail::nccl_state> state_;
};

/// Made by nccl_world, nccl_adopt and nccl_borrow.
using nccl_communicator = communicator<nccl_backend>;

namespace detail {

/// What rank 0 tells the others, and what all have to agree on: versions choose between calls that do not meet.
struct nccl_introduction {
  int version = 0;
  int native_calls = 0;
  char id[sizeof(ncclUniqueId)] = {};
  bool made = false;  ///< whether rank 0 has an id

  static nccl_introduction of(const nccl_api& api, int version, bool makes_id) {
    nccl_introduction mine;
    mine.version = version;
    mine.native_calls = (api.gather != nullptr) + 2 * (api.scatter != nullptr) + 4 * (api.all_to_all != nullptr);
    if (!makes_id) return mine;
    ncclUniqueId id;
    mine.made = api.get_unique_id(&id) == ncclSuccess;
    std::memcpy(mine.id, &id, sizeof id);
    return mine;
  }
  ncclUniqueId unique_id() const {
    ncclUniqueId result;
    std::memcpy(&result, id, sizeof result);
    return result;
  }
  /// Throws where this rank cannot go on with rank 0.
  void require(const nccl_introduction& mine, nccl_launch& launch) const {
    if (!made)
      launch.fail_with(
          transport_error("ncclGetUniqueId failed on rank 0; set NCCL_DEBUG=WARN there, and "
                          "NCCL_SOCKET_IFNAME where the machine has several networks"));
    if (version != mine.version || native_calls != mine.native_calls)
      launch.fail_with(usage_error("rank 0 uses NCCL " + nccl_version_text(version) + ", this rank " +
                                   nccl_version_text(mine.version) + "; load the same library on all ranks"));
  }
};

/// The ranks of `host` once more, for the metadata and failures of a NCCL communicator alone.
template <class Backend>
std::shared_ptr<nccl_host> nccl_host_of(communicator<Backend>& host, const std::string& name, const call_site& site) {
  static_assert(std::is_same_v<typename Backend::space, host_space>,
                "shardkit: a NCCL communicator stands on a communicator of host memory: threads, MPI or TCP");
  return std::make_shared<nccl_host>(erase(host.split(0, host.rank(), name, {{}, site})));
}

inline std::shared_ptr<nccl_launch> nccl_launch_of(const nccl_options& options, std::shared_ptr<nccl_host> host,
                                                   int rank) {
  require_valid(options.limits);
  return std::make_shared<nccl_launch>(options, current_cuda_device(), rank, std::move(host));
}

inline nccl_communicator nccl_over(const nccl_options& options, std::shared_ptr<nccl_host> host, ncclComm_t handle,
                                   bool owned, std::string name) {
  if (handle == nullptr) throw usage_error("'" + name + "': the NCCL communicator is null");
  const auto launch = nccl_launch_of(options, host, host->comm().rank());
  auto state = std::make_shared<nccl_state>(launch, std::move(host), owned);
  state->use(handle);
  return nccl_communicator(nccl_backend(std::move(state)), std::move(name));
}

}  // namespace detail

/// The ranks of `host`, each on its current device, as a communicator of NCCL. Collective, to the init deadline. `host`
/// is used only here; a communicator split from it lives on with the result.
template <class Backend>
nccl_communicator nccl_world(communicator<Backend>& host, const nccl_options& options = {}, std::string name = "world",
                             call_site site = call_site::current()) {
  const auto own_host = detail::nccl_host_of(host, name, site);
  const auto launch = detail::nccl_launch_of(options, own_host, host.rank());
  auto state = std::make_shared<detail::nccl_state>(launch, own_host, true);
  state->guarded([&] {
    const auto mine = detail::nccl_introduction::of(options.api, launch->version, host.is_root());
    const auto first = own_host->comm().exchange(mine, {{}, site}).front();
    first.require(mine, *launch);
    state->join(first.unique_id(), host.rank(), host.size());
  });
  return nccl_communicator(nccl_backend(std::move(state)), std::move(name));
}

/// One rank on its current device.
inline nccl_communicator nccl_world(const nccl_options& options = {}, std::string name = "world",
                                    call_site site = call_site::current()) {
  self_communicator alone{self_backend()};
  return nccl_world(alone, options, std::move(name), site);
}

/// The ranks of a bootstrap, where there is no host communicator: without a control lane, so that `exchange` and
/// `control` throw unsupported_error and a peer's failure shows at the deadline of a wait. Collective.
inline nccl_communicator nccl_world(bootstrap& start, const nccl_options& options = {}, std::string name = "world") {
  const auto launch = detail::nccl_launch_of(options, nullptr, start.rank());
  auto state = std::make_shared<detail::nccl_state>(launch, nullptr, true);
  const auto mine = detail::nccl_introduction::of(options.api, launch->version, start.rank() == 0);
  bootstrap::blob blob(sizeof mine);
  std::memcpy(blob.data(), &mine, sizeof mine);
  blob = start.broadcast(blob);
  detail::nccl_introduction first;
  if (blob.size() != sizeof first)
    launch->fail_with(usage_error("the bootstrap brought " + std::to_string(blob.size()) + " bytes from rank 0, not " +
                                  std::to_string(sizeof first) + "; do all ranks make a NCCL communicator here?"));
  std::memcpy(&first, blob.data(), sizeof first);
  first.require(mine, *launch);
  state->join(first.unique_id(), start.rank(), start.size());
  return nccl_communicator(nccl_backend(std::move(state)), std::move(name));
}

/// Takes over a communicator that the engine has made, of the same ranks as `host`; it is finalised and destroyed with
/// the result, or aborted. Make it with blocking = 0: otherwise waits inside NCCL have no deadline. Collective.
template <class Backend>
nccl_communicator nccl_adopt(ncclComm_t handle, communicator<Backend>& host, const nccl_options& options = {},
                             std::string name = "world", call_site site = call_site::current()) {
  return detail::nccl_over(options, detail::nccl_host_of(host, name, site), handle, true, std::move(name));
}
/// Uses a communicator that stays the engine's: it is never aborted, finalised or destroyed here, and not touched after
/// a failure. Collective.
template <class Backend>
nccl_communicator nccl_borrow(ncclComm_t handle, communicator<Backend>& host, const nccl_options& options = {},
                              std::string name = "world", call_site site = call_site::current()) {
  return detail::nccl_over(options, detail::nccl_host_of(host, name, site), handle, false, std::move(name));
}

}  // namespace shardkit
