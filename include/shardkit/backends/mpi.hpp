// Ranks as MPI processes: mpi_environment brings MPI up and down, mpi_backend carries a communicator over an MPI_Comm.
// Works with any MPI 3 library through its C interface.
//
//   int main(int argc, char** argv) {
//     shardkit::mpi_environment mpi(argc, argv);
//     auto world = mpi.world();
//     double loss = world.all_reduce(local_loss, shardkit::sum);
//   }
#pragma once

#include <shardkit/backends/detail/mpi_agreement.hpp>
#include <shardkit/backends/detail/mpi_messages.hpp>
#include <shardkit/backends/detail/mpi_start_messages.hpp>
#include <shardkit/comm/communicator.hpp>
#include <shardkit/comm/detail/launchers.hpp>

#include <climits>
#include <cstddef>
#include <exception>
#include <string>
#include <type_traits>
#include <utility>

namespace shardkit {

/// A communicator over an MPI_Comm. Made by mpi_environment and by split.
///
/// Sums and products of f32 and f64 and everything of integers are MPI's own; by_rank reductions, floating minimum and
/// maximum and 16-bit floats go in rank order and give the same bits as thread ranks; started, they take memory for all
/// ranks' elements. Counts have no limit: what does not fit in one MPI call goes in pieces. A receive that meets a
/// message of another size throws mismatch_error.
///
/// Started calls are MPI's non-blocking ones. MPI does not match them with blocking ones: where one rank starts a
/// collective, or lists it in a group, all ranks do. Messages match in any form.
///
/// When a rank fails, every later call throws peer_failed naming it, on all nodes. A rank that is blocked inside MPI
/// cannot throw: the abort grace after the failure its watchdog prints culprit and cause and ends the job by MPI_Abort,
/// as it does when a call outlasts the operation deadline. Plain MPI cannot survive a lost process, so neither can a
/// job over this backend.
class mpi_backend {
 public:
  using space = host_space;

  explicit mpi_backend(detail::shared<detail::mpi_state> state) noexcept : state_(std::move(state)) {}

  int rank() const noexcept { return state_->rank; }
  int size() const noexcept { return state_->size; }
  /// For calls of MPI's own. Messages of theirs must not be pending while the communicator is used.
  MPI_Comm native_handle() const noexcept { return state_->comm; }

  /// Any verb; see comm/calls.hpp. The collectives of a group are started, whether the group is waited for or not:
  /// ranks may differ in that where it spans several communicators.
  template <class Call>
  auto perform(const Call& call)
      -> decltype(detail::mpi_start(std::declval<detail::mpi_state&>(), std::declval<detail::mpi_pending&>(), call)) {
    if constexpr (std::is_same_v<Call, group_call>) {
      start(call).wait();
    } else {
      state_->run(Call::name, call.site, [&, this] {
        state_->require_not_refused();
        detail::mpi_run(*state_, call);
      });
    }
  }
  /// The verbs whose ordinary case is one call of MPI's; see comm/backend.hpp.
  template <class Call>
  [[gnu::always_inline]] inline auto perform_plainly(const Call& call) noexcept
      -> decltype(detail::mpi_plain<Call>::suffices(std::declval<detail::mpi_state&>(), call)) {
    using plain = detail::mpi_plain<Call>;
    using in_call = detail::mpi_in_call;
    detail::mpi_state& state = *state_;
    if (!in_call::is_allowed(state.slot) || !plain::suffices(state, call)) return false;
    int code = MPI_SUCCESS;
    {
      const in_call inside(state.slot, call);
      code = plain::perform(state, call);
    }
    if (code != MPI_SUCCESS) {
      state.refused(code, plain::function);
      return false;
    }
    return true;
  }

  /// Any verb or group, without waiting.
  template <class Call>
  auto start(const Call& call)
      -> decltype(detail::mpi_start(std::declval<detail::mpi_state&>(), std::declval<detail::mpi_pending&>(), call),
                  request()) {
    detail::mpi_pending& pending = state_->pending(Call::name, call.site);
    request started(&pending);
    state_->run(Call::name, call.site, [&, this] { detail::mpi_start(*state_, pending, call); });
    return started;
  }

  mpi_backend split(int colour, int key, const call_site& site) {
    return state_->run("split", site, [&, this] {
      MPI_Comm part = MPI_COMM_NULL;
      detail::mpi_check(MPI_Comm_split(state_->comm, colour, key, &part), "MPI_Comm_split");
      return mpi_backend(
          detail::shared<detail::mpi_state>::make(state_->launch, part, mpi_ownership::owned, state_->piece_bytes));
    });
  }

  void exchange(const void* in, void* out, std::size_t bytes, const call_site& site) {
    state_->run("exchange", site, [&, this] {
      detail::mpi_run(*state_, all_gather_call{in, out, bytes, dtype::u8, nullptr, site});
    });
  }

  control_lane& control() { return state_->control(); }
  void fail(const std::string& reason) noexcept { state_->launch->fail(reason.c_str()); }

  /// For what stands on the same communicator: mpi_cuda_backend.
  const detail::shared<detail::mpi_state>& state() const noexcept { return state_; }

 private:
  detail::shared<detail::mpi_state> state_;
};

/// Made by mpi_environment.
using mpi_communicator = communicator<mpi_backend>;

/// The same on every rank, which is checked.
struct mpi_options {
  deadlines limits;  ///< of every wait in the launch
  /// The most that MPI's functions with int counts get in one call: more goes in pieces, or from MPI 4 on, to those
  /// with large counts. At most INT_MAX, and no less than 8.
  std::size_t piece_bytes = std::size_t{1} << 30;
  /// What MPI_Init_thread is asked for. By default calls may come from any thread, one at a time; with
  /// MPI_THREAD_MULTIPLE threads may be in calls at once, each with communicators of its own.
  int thread_level = MPI_THREAD_SERIALIZED;
  /// Where there are several nodes, the address on which rank 0 waits for a connection from each of them, once, at the
  /// start: failures are told over these, since MPI may be stuck. A name or an address of rank 0's host; counts there
  /// only. Empty: SHARDKIT_LISTEN, or else what the host name stands for, or the first network interface. "none": no
  /// connections; a node then learns of another's failure when the job ends or by the operation deadline.
  std::string listen = {};
};

/// MPI from here to the end of the scope. Where the program has initialised MPI itself, it also finalises it. Meanwhile
/// errors on MPI_COMM_WORLD and MPI_COMM_SELF are returned, not fatal.
///
/// The destructor is collective, as MPI_Finalize is. When an exception passes it, or after a failure, it publishes the
/// failure and returns at once, so that a handler outside can report what it caught; the job then ends by MPI_Abort
/// with a non-zero status when this process exits, and no later than the abort grace. Peers have that time to see the
/// failure, report and exit themselves.
class mpi_environment {
 public:
  /// Initialises MPI where the program has not. Throws usage_error where the launcher belongs to another MPI, the
  /// thread level is not to be had or the options differ between ranks, and transport_error where a node cannot reach
  /// rank 0. Where a rank has not come by the init deadline, the job is aborted.
  mpi_environment(int& argc, char**& argv, const mpi_options& options = {}) : mpi_environment(&argc, &argv, options) {}
  /// The same where the program's arguments are not at hand.
  explicit mpi_environment(const mpi_options& options = {}) : mpi_environment(nullptr, nullptr, options) {}
  mpi_environment(const mpi_environment&) = delete;
  mpi_environment& operator=(const mpi_environment&) = delete;
  ~mpi_environment() {
    if (!detail::mpi_is_running()) return;
    if (std::uncaught_exceptions() > exceptions_) launch_->fail("it left by an exception");
    if (!launch_->close(owns_mpi_)) detail::mpi_launch::abandon(launch_);
  }

  int rank() const noexcept { return launch_->rank(); }
  int size() const noexcept { return launch_->size(); }

  /// Calls body(world). What it throws is published with its text before it passes on, so that the peers can name it,
  /// also where it drops requests on its way; of an exception that reaches the destructor otherwise they only learn
  /// that there was one.
  template <class Body>
  void run(Body&& body, call_site site = call_site::current()) {
    mpi_communicator all = world("world", site);
    try {
      std::forward<Body>(body)(all);
    } catch (...) {
      launch_->fail_as_caught();
      throw;
    }
  }

  /// All ranks, on a duplicate of MPI_COMM_WORLD. Collective.
  mpi_communicator world(std::string name = "world", call_site site = call_site::current()) {
    MPI_Comm copy = MPI_COMM_NULL;
    launch_->run(launch_->slot(), "world", site,
                 [&] { detail::mpi_check(MPI_Comm_dup(MPI_COMM_WORLD, &copy), "MPI_Comm_dup"); });
    return adopt(copy, std::move(name));
  }
  /// Takes over an MPI communicator, which is freed with the result.
  mpi_communicator adopt(MPI_Comm handle, std::string name) {
    return over(handle, mpi_ownership::owned, std::move(name));
  }
  /// Uses an MPI communicator that stays the caller's. Its errors are returned, not fatal, as long as the result lives.
  mpi_communicator borrow(MPI_Comm handle, std::string name) {
    return over(handle, mpi_ownership::borrowed, std::move(name));
  }

 private:
  mpi_environment(int* argc, char*** argv, const mpi_options& options)
      : options_(options), exceptions_(std::uncaught_exceptions()) {
    require_valid(options.limits);
    if (options.piece_bytes < 8 || options.piece_bytes > INT_MAX)
      throw usage_error("mpi_options: piece_bytes is " + std::to_string(options.piece_bytes) +
                        "; it has to be from 8 to " + std::to_string(INT_MAX));
    launch_ = detail::shared<detail::mpi_launch>::make(options.limits);
    bool refused = true;  // on every rank alike, with MPI as it was before
    try {
      launch_->run(launch_->arrival_slot(), "MPI_Init", {}, [&, this] {
        initialize(argc, argv);
        refused = false;
        launch_->join(options_.listen.c_str());
      });
    } catch (...) {
      if ((owns_mpi_ || !refused) && detail::mpi_is_running()) detail::mpi_launch::abandon(launch_);
      throw;
    }
  }

  void initialize(int* argc, char*** argv) {
    int initialized = 0, finalized = 0, provided = 0, size = 0;
    detail::mpi_check(MPI_Finalized(&finalized), "MPI_Finalized");
    if (finalized != 0) throw usage_error("MPI was finalised before; a process can use it only once");
    detail::mpi_check(MPI_Initialized(&initialized), "MPI_Initialized");
    owns_mpi_ = initialized == 0;
    if (owns_mpi_) detail::mpi_check(MPI_Init_thread(argc, argv, options_.thread_level, &provided), "MPI_Init_thread");
    else detail::mpi_check(MPI_Query_thread(&provided), "MPI_Query_thread");
    detail::mpi_check(MPI_Comm_size(MPI_COMM_WORLD, &size), "MPI_Comm_size");
    const launched_processes launched = launched_size();
    if (size == 1 && launched.size > 1)
      refuse("MPI sees 1 rank, but " + std::string(launched.variable) + " says that the launcher started " +
             std::to_string(launched.size) +
             " processes: it belongs to another MPI library than this program is built "
             "with. Start the program with the mpiexec of its own MPI; to run it alone, unset " +
             launched.variable);
    if (provided < options_.thread_level) {
      const std::string asked = detail::mpi_name_of_thread_level(options_.thread_level);
      refuse(std::string(owns_mpi_ ? "MPI provides " : "the program has initialised MPI with ") +
             detail::mpi_name_of_thread_level(provided) + ", and mpi_options::thread_level asks for " + asked + "; " +
             (owns_mpi_ ? "ask for less, or use another MPI library"
                        : "ask for less, call MPI_Init_thread with " + asked + ", or leave that to mpi_environment"));
    }
    const detail::mpi_option same[] = {{"limits.init", options_.limits.init},
                                       {"limits.operation", options_.limits.operation},
                                       {"limits.abort", options_.limits.abort},
                                       {"piece_bytes", static_cast<double>(options_.piece_bytes)},
                                       {"thread_level", static_cast<double>(options_.thread_level)}};
    const std::string disagreement = detail::mpi_disagreement(same, sizeof same / sizeof *same);
    if (!disagreement.empty()) refuse(disagreement);
  }
  // On every rank alike, so that MPI can be finalised.
  [[noreturn]] void refuse(const std::string& reason) {
    if (owns_mpi_) MPI_Finalize();
    throw usage_error(reason);
  }

  mpi_communicator over(MPI_Comm handle, mpi_ownership ownership, std::string name) {
    if (handle == MPI_COMM_NULL) throw usage_error("'" + name + "': the MPI communicator is MPI_COMM_NULL");
    int has_two_groups = 0;
    detail::mpi_check(MPI_Comm_test_inter(handle, &has_two_groups), "MPI_Comm_test_inter");
    if (has_two_groups != 0)
      throw usage_error("'" + name +
                        "': the MPI communicator is an inter-communicator, and the verbs need all ranks in one group; "
                        "pass what MPI_Intercomm_merge makes of it");
    return mpi_communicator(
        mpi_backend(detail::shared<detail::mpi_state>::make(launch_, handle, ownership, options_.piece_bytes)),
        std::move(name));
  }

  const mpi_options options_;
  const int exceptions_;
  bool owns_mpi_ = false;
  detail::shared<detail::mpi_launch> launch_;
};

}  // namespace shardkit
