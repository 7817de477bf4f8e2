// What all communicators of one mpi_environment share: who we are in the world, the failure board of this node, the
// watchdog, and how the process leaves MPI, with or without a failure.
#pragma once

#include <shardkit/backends/detail/mpi_watchdog.hpp>
#include <shardkit/core/detail/atomic.hpp>
#include <shardkit/core/detail/shared.hpp>

#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <new>
#include <string>

namespace shardkit::detail {

class mpi_launch final : public shared_object {
 public:
  explicit mpi_launch(const deadlines& limits)
      : limits_(limits),
        arrival_(board_.load(), limits.init),
        calls_(board_.load(), limits.operation),
        watchdog_(limits, board_.load()) {
    watchdog_.add(arrival_);
    watchdog_.add(calls_);
  }

  int rank() const noexcept { return rank_; }
  int size() const noexcept { return size_; }
  const deadlines& limits() const noexcept { return limits_; }
  bool failed() const noexcept { return board().failed(); }
  /// Whether the reason of the failure is known.
  bool told() const noexcept { return board().told(); }
  /// Throws peer_failed where the launch has failed.
  void require_alive() const {
    if (!board().clear()) board().throw_failure();
  }
  mpi_watchdog& watchdog() noexcept { return watchdog_; }
  /// For calls before there is a communicator (init) and around those that make or end one.
  mpi_call_slot& arrival_slot() noexcept { return arrival_; }
  mpi_call_slot& slot() noexcept { return calls_; }

  /// After MPI_Init: collective over the world. `listen`: see mpi_options.
  void join(const char* listen) {
    // Errors of requests are raised on one of these two, whatever communicator the requests belong to.
    for (std::size_t i = 0; i < 2; ++i) {
      mpi_check(MPI_Comm_get_errhandler(predefined(i), &former_handlers_[i]), "MPI_Comm_get_errhandler");
      mpi_check(MPI_Comm_set_errhandler(predefined(i), MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
    }
    mpi_check(MPI_Comm_dup(MPI_COMM_WORLD, &world_), "MPI_Comm_dup");
    mpi_check(MPI_Comm_set_errhandler(world_, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
    mpi_check(MPI_Comm_rank(world_, &rank_), "MPI_Comm_rank");
    mpi_check(MPI_Comm_size(world_, &size_), "MPI_Comm_size");
    watchdog_.introduce("rank " + std::to_string(rank_) + " of " + std::to_string(size_));
    node_.join(world_);
    board_.store(&node_.board());
    watchdog_.follow(board_.load(), nullptr);
    // Before the deadline of the whole, which would end the job.
    if (watchdog_.watches()) node_.connect(world_, listen, mpi_smaller(limits_.init / 4, longest_meeting));
    watchdog_.follow(board_.load(), &node_);
    watch_exit();
  }

  /// This rank failed: published where its node can see it, which tells the others, so that no call is entered any
  /// more.
  void fail(const char* reason) noexcept { board().publish_own(rank_, reason); }
  /// The same inside a catch block, with what was caught as the reason.
  void fail_as_caught() noexcept {
    try {
      throw;
    } catch (const peer_failed& failure) {
      if (!failed()) fail(failure.message().c_str());  // else it says what is known
    } catch (const error& failure) {
      fail(failure.message().c_str());
    } catch (const std::exception& failure) {
      fail(failure.what());
    } catch (...) {
      fail("unknown exception");
    }
  }
  /// This rank has dropped a request of the call `name` before it completed. Where an exception is passing, that is
  /// the cause, and its text is not known here but to whoever catches it: `run` or `fail` of the communicator. They are
  /// waited for a moment; the drop counts where the exception is swallowed, or where giving up the request keeps it
  /// from going on.
  void fail_as_dropped(const char* name) noexcept {
    const bool passing = std::uncaught_exceptions() != 0;
    char text[150];  // not a string: nothing may be thrown here
    std::snprintf(text, sizeof text, "a request of %s was dropped before it completed%s", name,
                  passing ? ", by an exception" : "");
    if (passing) board().publish_unless_more_comes(rank_, text);
    else fail(text);
  }

  /// Runs one call: refused after a failure, watched while it lasts, and what it throws fails the launch, so that no
  /// peer waits for this rank.
  template <class Body>
  auto run(mpi_call_slot& slot, const char* name, const call_site& site, Body body) {
    const mpi_in_call in_call(slot, name, site);
    try {
      return body();
    } catch (...) {
      fail_as_caught();
      throw;
    }
  }

  /// Wishes that all ranks stop, which is no failure. Heard by whoever asks `stop_asked`.
  void ask_to_stop() noexcept {
    if (stop_.exchange(true) || failed()) return;
    for (int peer = 0; peer < size_; ++peer) {
      MPI_Request sent = MPI_REQUEST_NULL;
      if (peer != rank_ && MPI_Isend(nullptr, 0, MPI_BYTE, peer, stop_tag, world_, &sent) == MPI_SUCCESS)
        MPI_Request_free(&sent);
    }
  }
  bool stop_asked() {
    int arrived = 0;
    MPI_Message found = MPI_MESSAGE_NULL;
    while (!failed() &&
           MPI_Improbe(MPI_ANY_SOURCE, stop_tag, world_, &arrived, &found, MPI_STATUS_IGNORE) == MPI_SUCCESS &&
           arrived != 0) {
      MPI_Mrecv(nullptr, 0, MPI_BYTE, &found, MPI_STATUS_IGNORE);
      stop_.store(true);
    }
    return stop_.load();
  }

  /// Leaves MPI together with the other ranks. False where the launch has failed: they will not all come.
  bool close(bool finalize) noexcept {
    if (board().failed()) return false;
    const mpi_in_call in_call(calls_, "MPI_Finalize", {}, mpi_in_call::even_after_failure{});
    // Once all have arrived here nobody needs the board any more.
    if (MPI_Barrier(world_) != MPI_SUCCESS) fail("MPI_Barrier failed before MPI_Finalize");
    if (board().failed()) return false;
    (void)stop_asked();  // takes wishes that nobody has asked for
    own_.close();
    board_.store(&own_);
    watchdog_.follow(&own_, nullptr);
    live().store(outer_);
    // There is nobody left to throw to: an error from here on is fatal by MPI's own handler.
    node_.leave();
    MPI_Comm_set_errhandler(world_, MPI_ERRORS_ARE_FATAL);
    MPI_Comm_free(&world_);
    for (std::size_t i = 0; i < 2; ++i) {
      MPI_Comm_set_errhandler(predefined(i), former_handlers_[i]);
      MPI_Errhandler_free(&former_handlers_[i]);
    }
    if (finalize) MPI_Finalize();
    return true;
  }

  /// Gives up after a failure, and lets the process go on to its exit, so that the user's handler can report what it
  /// caught. At the exit, or when the grace is over, the job is ended: MPI_Finalize would wait for peers that cannot
  /// come.
  static void abandon(const shared<mpi_launch>& launch) noexcept {
    launch->watch_exit();
    launch->watchdog_.give_up();
    new (std::nothrow) shared<mpi_launch>(launch);  // the watchdog works until the process has ended
  }

 private:
  mpi_failure_board& board() const noexcept { return *board_.load(memory_order_acquire); }

  static MPI_Comm predefined(std::size_t which) noexcept { return which == 0 ? MPI_COMM_WORLD : MPI_COMM_SELF; }

  /// The launch that the end of the process would leave unfinished; null where there is none.
  static atomic<mpi_launch*>& live() noexcept {
    static atomic<mpi_launch*> only{nullptr};
    return only;
  }

  // After MPI_Init: before MPI's own handlers then.
  void watch_exit() noexcept {
    mpi_launch* const before = live().exchange(this);
    if (before != this) outer_ = before;
    static const int once = std::atexit([] {
      if (mpi_launch* const left_open = live().load()) left_open->end_at_exit();
    });
    (void)once;
  }

  void end_at_exit() noexcept {
    if (!failed()) fail("it called exit with its mpi_environment in use");
    board().depart();
    // Peers use the grace to see the failure, say so and leave.
    const double step = 0.01;
    for (double waited = 0; waited < limits_.abort && !node_.all_departed(); waited += step)
      ::usleep(static_cast<unsigned>(step * 1e6));
    mpi_end_job("shardkit: rank " + std::to_string(rank_) + " of " + std::to_string(size_) +
                    " ends the job, because rank " + std::to_string(board().culprit()) + " failed: " + board().reason(),
                limits_.abort);
  }

  static constexpr double longest_meeting = 10;  // seconds; nodes that reach each other take milliseconds
  static constexpr int stop_tag = 1;             // of the only messages on world_

  const deadlines limits_;
  int rank_ = -1, size_ = 0;
  MPI_Comm world_ = MPI_COMM_NULL;
  atomic<bool> stop_{false};
  MPI_Errhandler former_handlers_[2] = {MPI_ERRHANDLER_NULL, MPI_ERRHANDLER_NULL};
  mpi_node node_;
  mpi_launch* outer_ = nullptr;  // of the environment around this one
  mpi_failure_board own_;        // before the shared one is there and after it has gone
  atomic<mpi_failure_board*> board_{&own_};
  mpi_call_slot arrival_, calls_;
  mpi_watchdog watchdog_;
};

}  // namespace shardkit::detail
