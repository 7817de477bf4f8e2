// What the ranks of one node know of each other without MPI, which may be stuck: the failure board and where each rank
// is, in shared memory, and whether a process has ended. The first rank of each node hears from the other nodes, too.
#pragma once

#include <shardkit/backends/detail/mpi_failure_board.hpp>
#include <shardkit/backends/detail/mpi_lifeline.hpp>
#include <shardkit/backends/detail/mpi_links.hpp>
#include <shardkit/backends/detail/mpi_meeting.hpp>
#include <shardkit/backends/detail/mpi_roll_call.hpp>
#include <shardkit/core/detail/list.hpp>

#include <cstddef>
#include <new>
#include <string>

#include <unistd.h>

namespace shardkit::detail {

class mpi_node {
 public:
  mpi_node() = default;
  mpi_node(const mpi_node&) = delete;
  mpi_node& operator=(const mpi_node&) = delete;

  /// Collective over `world`.
  void join(MPI_Comm world) {
    int world_rank = 0;
    mpi_check(MPI_Comm_rank(world, &world_rank), "MPI_Comm_rank");
    mpi_check(MPI_Comm_split_type(world, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &comm_), "MPI_Comm_split_type");
    mpi_check(MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
    mpi_check(MPI_Comm_rank(comm_, &rank_), "MPI_Comm_rank");
    mpi_check(MPI_Comm_size(comm_, &size_), "MPI_Comm_size");
    // All in the memory of the first.
    void* memory = nullptr;
    const std::size_t whole = sizeof(mpi_failure_board) + static_cast<std::size_t>(size_) * sizeof(mpi_whereabouts);
    MPI_Aint bytes = rank_ == 0 ? static_cast<MPI_Aint>(whole) : 0;
    mpi_check(MPI_Win_allocate_shared(bytes, 1, MPI_INFO_NULL, comm_, &memory, &window_), "MPI_Win_allocate_shared");
    int unit = 0;
    mpi_check(MPI_Win_shared_query(window_, 0, &bytes, &unit, &memory), "MPI_Win_shared_query");
    board_ = static_cast<mpi_failure_board*>(memory);
    static_assert(sizeof(mpi_failure_board) % alignof(mpi_whereabouts) == 0);
    ranks_ = reinterpret_cast<mpi_whereabouts*>(board_ + 1);
    if (rank_ == 0) {
      new (board_) mpi_failure_board;
      for (int r = 0; r < size_; ++r) new (ranks_ + r) mpi_whereabouts;
    }
    mpi_check(MPI_Barrier(comm_), "MPI_Barrier");
    ranks_[rank_].come(world_rank);
    lifeline_.connect(comm_);
  }
  /// Connects the nodes, where there are several. Collective over `world`, within so many seconds; throws
  /// transport_error on every rank where a node cannot be reached.
  void connect(MPI_Comm world, const char* listen, double seconds) {
    int world_rank = 0, world_size = 0;
    mpi_check(MPI_Comm_rank(world, &world_rank), "MPI_Comm_rank");
    mpi_check(MPI_Comm_size(world, &world_size), "MPI_Comm_size");
    audience_ = size_;
    if (size_ == world_size) return;
    list<int> first_of(static_cast<std::size_t>(world_size));
    const int first = ranks_[0].rank();
    mpi_check(MPI_Allgather(&first, 1, MPI_INT, first_of.data(), 1, MPI_INT, world), "MPI_Allgather");
    bool met = false;
    links_.take(world_rank, first_of, mpi_meeting(world, world_rank, first_of, seconds).meet(listen, met));
    if (met) audience_ = world_size;
  }
  /// Collective, after all ranks are known to come. An error is fatal by MPI's own handler.
  void leave() noexcept {
    ranks_[rank_].leave();
    links_.close();
    lifeline_.close();
    MPI_Comm_set_errhandler(comm_, MPI_ERRORS_ARE_FATAL);
    MPI_Win_free(&window_);
    MPI_Comm_free(&comm_);
  }

  /// Whether every process that hears of a failure here has departed after it.
  bool all_departed() const noexcept {
    return board_ == nullptr || board_->departed() + board_->departed_elsewhere() >= audience_;
  }
  mpi_failure_board& board() const noexcept { return *board_; }

  // ---- For the watchdog

  /// Where this rank is: "all_reduce at engine.cpp:12", or empty for in no call. Looks for a neighbour that has ended,
  /// and for what other nodes say.
  void note(const char* place) noexcept {
    ranks_[rank_].note(place);
    const int gone = lifeline_.ended();
    if (gone >= 0 && !noticed_ && !ranks_[gone].left()) {
      noticed_ = true;
      board_->publish(ranks_[gone].rank(), "its process has ended without leaving MPI: killed, crashed or exited");
      board_->depart();
    }
    hear();
  }

  /// The ranks that are not where this one is, "; rank 1 is in no call; rank 2 gives no sign of life". Takes a while.
  std::string elsewhere() {
    const std::string here = ranks_[rank_].place();
    const bool alone = audience_ == size_;
    if (!alone) board_->question().publish(here.c_str());
    call_.begin(ranks_, size_);
    // The others may be asking the same, meanwhile.
    while (call_.passed() < (alone ? 1 : 3) * mpi_roll_call::seconds && !board_->answer().published()) {
      ::usleep(50000);
      ranks_[rank_].beat();
      hear();
    }
    if (board_->answer().published()) return board_->answer().text();
    return call_.absent(here) + links_.silent();
  }

 private:
  // What other nodes say. Where somebody asks for the ranks that are elsewhere, each node tells those of its own, and
  // rank 0's sends round what it has heard.
  void hear() noexcept {
    try {
      links_.look(*board_);
      if (links_.empty() || !board_->question().published() || board_->answer().published()) return;
      if (!asked_) {
        call_.begin(ranks_, size_);
        links_.tell(tcp_frame_kind::posted, board_->question().text());
        asked_ = true;
      }
      const bool first = ranks_[0].rank() == 0;
      if (call_.passed() < mpi_roll_call::seconds ||
          (first && !links_.silent().empty() && call_.passed() < 2 * mpi_roll_call::seconds))
        return;
      if (!first && answered_) return;
      const std::string text = call_.absent(board_->question().text()) + (first ? links_.answers() : "");
      links_.tell(tcp_frame_kind::exchanged, text.c_str());
      answered_ = true;
      if (first) board_->answer().publish(text.c_str());
    } catch (const std::bad_alloc&) {  // the next look tries again
    }
  }

  MPI_Comm comm_ = MPI_COMM_NULL;
  MPI_Win window_ = MPI_WIN_NULL;
  int rank_ = 0, size_ = 1;
  mpi_failure_board* board_ = nullptr;
  mpi_whereabouts* ranks_ = nullptr;
  mpi_lifeline lifeline_;
  mpi_links links_;
  int audience_ = 1;      // how many processes hear of a failure
  bool noticed_ = false;  // that the neighbour has ended
  mpi_roll_call call_;
  bool asked_ = false, answered_ = false;  // the other nodes
};

}  // namespace shardkit::detail
