// MPI for buffers in device memory, on top of the host backend (mpi.hpp):
//
//   shardkit::mpi_environment mpi(argc, argv);
//   auto host = mpi.world();
//   cudaSetDevice(host.rank() % shardkit::cuda_device_count());
//   auto world = shardkit::mpi_cuda_world(host);
//   world.all_reduce(in_place(gradients), sum, stream);
//
// Where the MPI library says that it takes device memory it gets it; everything else goes through pinned host memory,
// in pieces, so that a piece is copied from the device while another is with MPI and a third is copied back.
#pragma once

#include <shardkit/backends/detail/mpi_cuda_engine.hpp>
#include <shardkit/backends/detail/mpi_cuda_support.hpp>
#include <shardkit/backends/mpi.hpp>
#include <shardkit/cuda/fork.hpp>

#include <algorithm>
#include <cstddef>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>

namespace shardkit {

/// Whether elements may travel through host memory.
enum class staging { allowed, forbidden };

/// Whether MPI takes device memory: as it says, or as the user knows better (a library that cannot tell, or one whose
/// support is broken).
enum class mpi_cuda_aware { ask, yes, no };

/// The same on every rank.
struct mpi_cuda_options {
  mpi_cuda_aware aware = mpi_cuda_aware::ask;              ///< whether MPI takes device memory
  shardkit::staging staging = shardkit::staging::allowed;  ///< whether host memory may stand in
  /// Pinned memory of a call under way, in two halves, each of them a piece. It is made in advance for one call; calls
  /// under way beside it add what they need, which is kept. At least 4096, and 64 for each rank.
  std::size_t staging_bytes = std::size_t{8} << 20;
};

namespace detail {

/// Whether one call of MPI's, made with device memory, is all that a collective needs: nothing is combined, divided or
/// copied by the host. The same answer on every rank.
template <class Call>
bool mpi_cuda_is_direct(const mpi_state& state, const Call& call) noexcept {
  if constexpr (std::is_same_v<Call, broadcast_call>) return true;
  else if constexpr (std::is_same_v<Call, all_reduce_call>) return mpi_plain<Call>::suffices(state, call);
  else if constexpr (std::is_same_v<Call, all_gather_call> || std::is_same_v<Call, gather_call> ||
                     std::is_same_v<Call, scatter_call> || std::is_same_v<Call, all_to_all_call>)
    return state.fits(call.count, call.type);
  else if constexpr (std::is_same_v<Call, all_gather_uneven_call> || std::is_same_v<Call, gather_uneven_call> ||
                     std::is_same_v<Call, scatter_uneven_call>)
    return state.fits(call.layout->total(), call.type);
  else return false;
}

}  // namespace detail

/// A communicator over MPI whose buffers lie in device memory. Made by mpi_cuda_world and by split.
///
/// MPI works on the host, so a verb makes the calling thread wait, by polling to the operation deadline with an eye on
/// failures, and never by synchronising a stream or device. It waits
/// - for what the stream held before the call, where the call reads device memory: MPI gets the elements when an event
///   behind their copy is reached. A barrier, and every call that MPI makes on device memory itself, waits for the
///   stream too; a recv, and a broadcast on other ranks than the root, through staging memory do not;
/// - for the copies of calls before it that still use the staging memory;
/// - for MPI, and so for its peers.
/// It does not wait for the copies back to the device: they are enqueued on the stream when it returns, and whatever is
/// enqueued from then on sees the result. Started calls return at once; they go on in every test, wait and call of
/// communicators that come from one mpi_cuda_world. split and exchange wait until MPI has got what was started before.
///
/// Reductions have the bits of mpi_backend: MPI's own sums (which may depend on staging_bytes), rank order where that
/// is defined. The host combines in rank order, with pageable memory for a piece of each rank. 8-bit floats are
/// refused.
///
/// Where MPI takes device memory it gets messages, and, unless they are started or in a group, broadcasts, gathers,
/// scatters, equal all_to_all, and those all_reduces that are MPI's own. The rest is staged, and throws usage_error
/// where staging is forbidden. While such a collective waits inside MPI, started calls larger than their staging memory
/// do not go on.
///
/// A call belongs to the device on which the communicator was made; it throws usage_error where another one is current,
/// and where its stream is being captured, before anything is enqueued. Steady calls allocate nothing. Failures and
/// deadlines are those of mpi_backend.
class mpi_cuda_backend {
 public:
  using space = cuda_space;
  /// A host library cannot be part of a graph.
  static constexpr bool is_capturable = false;

  mpi_cuda_backend(mpi_backend host, std::shared_ptr<detail::mpi_cuda_engine> engine)
      : host_(std::move(host)), engine_(std::move(engine)) {
    // Collective, as making this is; later it would make calls of several threads wait for each other.
    state().run("mpi_cuda_world", {}, [&, this] { (void)state().inner(); });
  }

  int rank() const noexcept { return host_.rank(); }
  int size() const noexcept { return host_.size(); }
  /// For calls of MPI's own. Messages of theirs must not be pending while the communicator is used.
  MPI_Comm native_handle() const noexcept { return host_.native_handle(); }
  /// Whether MPI gets device memory.
  bool is_direct() const noexcept { return engine_->direct; }

  template <class Call>
  auto perform(const Call& call)
      -> decltype(detail::mpi_start(std::declval<detail::mpi_state&>(), std::declval<detail::mpi_pending&>(), call)) {
    if constexpr (!std::is_same_v<Call, group_call> && !detail::is_message<Call>) {
      if (engine_->direct && detail::mpi_cuda_is_direct(state(), call)) return perform_directly(call);
    }
    start(call).wait();
  }

  template <class Call>
  auto start(const Call& call)
      -> decltype(detail::mpi_start(std::declval<detail::mpi_state&>(), std::declval<detail::mpi_pending&>(), call),
                  request()) {
    return guarded([&, this] {
      require_possible(call, call.stream);
      if constexpr (std::is_same_v<Call, group_call>) {
        for (std::size_t i = 0; i < call.count; ++i)
          visit([&, this](const auto& one) { this->require_possible(one, one.stream); }, call.calls[i]);
        return joined_requests::of([&, this](joined_requests& started) {
          for (std::size_t i = 0; i < call.count; ++i)
            visit([&, this](const auto& one) { started.add(this->begin(one)); }, call.calls[i]);
        });
      } else {
        return begin(call);
      }
    });
  }

  /// Collective, and on this device.
  mpi_cuda_backend split(int colour, int key, const call_site& site) {
    wait_for(detail::mpi_cuda_task::wait_for_order, nullptr, site);
    return mpi_cuda_backend(host_.split(colour, key, site), engine_);
  }
  void exchange(const void* in, void* out, std::size_t bytes, const call_site& site) {
    wait_for(detail::mpi_cuda_task::wait_for_order, nullptr, site);
    host_.exchange(in, out, bytes, site);
  }
  control_lane& control() {
    if (!has_control_) wait_for(detail::mpi_cuda_task::wait_for_order, nullptr, {});
    has_control_ = true;
    return host_.control();
  }
  void fail(const std::string& reason) noexcept { host_.fail(reason); }
  /// Throws where a rank of this node has failed; moves along what is under way.
  void throw_if_failed(const call_site& = {}) {
    (void)engine_->advance(nullptr);
    const detail::mpi_launch& launch = *state().launch;
    if (!launch.failed() || launch.told()) launch.require_alive();
  }

 private:
  detail::mpi_state& state() const noexcept { return *host_.state(); }

  /// What this rank cannot do fails the launch, so that no peer waits for it.
  template <class Body>
  auto guarded(Body body) {
    try {
      return body();
    } catch (...) {
      state().launch->fail_as_caught();
      throw;
    }
  }

  template <class Call>
  request begin(const Call& call) {
    if constexpr (std::is_same_v<Call, send_recv_call>) {
      return joined_requests::of([&, this](joined_requests& both) {
        both.add(begin(recv_call{call.out, call.recv_count, call.type, call.from, call.stream, call.site}));
        both.add(begin(send_call{call.in, call.send_count, call.type, call.to, call.stream, call.site}));
      });
    } else {
      request started(&engine_->begin(host_.state(), engine_, call));
      // Copies are enqueued, and what can be posted is, before this returns: the order of calls is that of the program.
      if (started.pending()->test()) return {};
      return started;
    }
  }

  /// Until MPI has got all collectives that were started before: a blocking one may not overtake them.
  void wait_for(detail::mpi_cuda_task task, void* stream, const call_site& site) {
    request(&engine_->begin(host_.state(), engine_, barrier_call{stream, site}, task)).wait();
  }

  /// MPI works on the device memory itself, behind what the stream holds and what was started before.
  template <class Call>
  void perform_directly(const Call& call) {
    guarded([&, this] {
      require_possible(call, call.stream, true);
      wait_for(detail::mpi_cuda_task::wait_for_stream, call.stream, call.site);
    });
    state().run(Call::name, call.site, [&, this] { detail::mpi_run(state(), call); });
  }

  template <class Call>
  void require_possible(const Call& call, void* stream, bool is_direct = false) {
    const int current = current_cuda_device(call.site);
    if (current != engine_->device)
      throw usage_error("the communicator was made on device " + std::to_string(engine_->device) +
                        ", and the current device is " + std::to_string(current) + "; call cudaSetDevice(" +
                        std::to_string(engine_->device) + ") first");
    if (cuda_space::from_native(stream).is_captured(call.site))
      throw usage_error(std::string(Call::name) +
                        " over MPI, which works on the host, cannot be captured into a graph; call it between graphs, "
                        "or use NCCL");
    if constexpr (requires { call.op; }) (void)detail::mpi_cuda_combination(call.type);
    constexpr bool is_moved_by_stages =
        !std::is_same_v<Call, group_call> && !std::is_same_v<Call, barrier_call> && !detail::is_message<Call>;
    if (is_moved_by_stages && !engine_->stages && !is_direct)
      throw usage_error(std::string("this ") + Call::name +
                        " needs host memory, and staging is forbidden: MPI gets device memory only of messages and of "
                        "collectives that are neither started nor listed in a group nor combined by the host; allow "
                        "staging, or use NCCL");
    state().launch->require_alive();
  }

  mpi_backend host_;
  std::shared_ptr<detail::mpi_cuda_engine> engine_;
  bool has_control_ = false;
};

/// CUDA buffers over MPI; see mpi_cuda_backend.
using mpi_cuda_communicator = communicator<mpi_cuda_backend>;

/// The ranks of `host`, each on its current device, for buffers in device memory. Collective. MPI gets device memory
/// where it takes it on every rank. Throws usage_error on every rank where it does not and staging is forbidden.
inline mpi_cuda_communicator mpi_cuda_world(mpi_communicator& host, const mpi_cuda_options& options = {},
                                            std::string name = "world", call_site site = call_site::current()) {
  const auto refuse = [&](const std::string& why) {
    usage_error wrong(why);
    wrong.attach({host.rank(), host.size(), std::move(name), "mpi_cuda_world", 0, site});
    throw wrong;
  };
  struct request_of_rank {
    bool takes_device_memory, may_stage;
    std::size_t staging_bytes;
  };
  const bool may_stage = options.staging == staging::allowed;
  const bool takes =
      options.aware == mpi_cuda_aware::yes || (options.aware == mpi_cuda_aware::ask && detail::mpi_says_cuda_aware());
  bool aware = true;
  const std::size_t least = std::max<std::size_t>(4096, 64 * static_cast<std::size_t>(host.size()));
  for (const request_of_rank& one :
       host.exchange(request_of_rank{takes, may_stage, options.staging_bytes}, {{}, site})) {
    if (one.staging_bytes < least)
      refuse("mpi_cuda_options: staging_bytes is " + std::to_string(one.staging_bytes) + "; " +
             std::to_string(host.size()) + " ranks need at least " + std::to_string(least));
    if (one.staging_bytes != options.staging_bytes || one.may_stage != may_stage)
      refuse("mpi_cuda_options: the ranks disagree about staging, and would cut their calls differently");
    aware = aware && one.takes_device_memory;
  }
  if (!aware && !may_stage)
    refuse("staging is forbidden, and MPI does not say that it takes device memory" +
           std::string(takes ? " on every rank" : "") +
           "; use an MPI library built with CUDA, say mpi_cuda_aware::yes if it is one that cannot tell, or allow "
           "staging");
  mpi_backend own = host.backend().split(0, host.rank(), site);
  const detail::mpi_state& state = *own.state();
  const std::size_t piece = std::max(std::min(options.staging_bytes / 2, state.piece_bytes), least / 2);
  auto engine =
      std::make_shared<detail::mpi_cuda_engine>(piece, aware, may_stage, state.launch->limits().abort, host.size());
  return mpi_cuda_communicator(mpi_cuda_backend(std::move(own), std::move(engine)), std::move(name));
}

}  // namespace shardkit
