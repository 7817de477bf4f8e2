// How far each rank of this node is in the test cases, in memory that the ranks share: the threads that watch them read
// it while MPI itself may be stuck.
#pragma once

#include <shardkit/backends/detail/mpi_api.hpp>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <new>
#include <string>

namespace shardkit::testing::detail {

class rank_board {
 public:
  /// Collective over `comm`.
  explicit rank_board(MPI_Comm comm) {
    using shardkit::detail::mpi_check;
    int rank = 0, node_rank = 0, unit = 0;
    mpi_check(MPI_Comm_rank(comm, &rank), "MPI_Comm_rank");
    mpi_check(MPI_Comm_split_type(comm, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &node_), "MPI_Comm_split_type");
    mpi_check(MPI_Comm_rank(node_, &node_rank), "MPI_Comm_rank");
    mpi_check(MPI_Comm_size(node_, &size_), "MPI_Comm_size");
    void* memory = nullptr;
    MPI_Aint bytes = node_rank == 0 ? static_cast<MPI_Aint>(sizeof(state) * (1 + static_cast<std::size_t>(size_))) : 0;
    mpi_check(MPI_Win_allocate_shared(bytes, 1, MPI_INFO_NULL, node_, &memory, &window_), "MPI_Win_allocate_shared");
    mpi_check(MPI_Win_shared_query(window_, 0, &bytes, &unit, &memory), "MPI_Win_shared_query");
    states_ = static_cast<state*>(memory);
    if (node_rank == 0)
      for (int r = 0; r <= size_; ++r) new (states_ + r) state;
    mpi_check(MPI_Barrier(node_), "MPI_Barrier");
    own_ = states_ + 1 + node_rank;
    own_->rank.store(rank);
    mpi_check(MPI_Barrier(node_), "MPI_Barrier");
  }
  rank_board(const rank_board&) = delete;
  rank_board& operator=(const rank_board&) = delete;
  /// Collective.
  ~rank_board() {
    MPI_Win_free(&window_);
    MPI_Comm_free(&node_);
  }

  void begin() noexcept { own_->begun.fetch_add(1); }
  void leave(bool passed) noexcept {
    own_->failed.store(!passed);
    own_->left.fetch_add(1);
  }

  /// Whether a rank has left the case that this rank is at, by a failure.
  bool left_failing() const noexcept {
    for (int r = 1; r <= size_; ++r)
      if (states_[r].left.load() >= own_->begun.load() && states_[r].failed.load()) return true;
    return false;
  }
  /// Whether a rank of this node has not come to the end of the case that this rank is at.
  bool incomplete() const noexcept { return !missing(own_->begun.load()).empty(); }

  /// "; ranks that have not arrived at its end: 0, 2; ranks that have left it failing: 1". A rank that is stuck between
  /// two cases has not arrived where the others are.
  std::string text() const {
    std::string failing;
    for (int r = 1; r <= size_; ++r)
      if (states_[r].left.load() >= own_->begun.load() && states_[r].failed.load())
        failing += (failing.empty() ? "" : ", ") + std::to_string(states_[r].rank.load());
    std::string text;
    int furthest = 0;
    for (int r = 1; r <= size_; ++r) furthest = std::max(furthest, states_[r].begun.load());
    if (const auto late = missing(furthest); !late.empty()) text += "; ranks that have not arrived at its end: " + late;
    if (!failing.empty()) text += "; ranks that have left it failing: " + failing;
    return text;
  }

  /// The first to call this ends the job; all others only show what they have and say so.
  bool begin_ending() noexcept { return states_[0].begun.exchange(1) == 0; }
  bool ending() const noexcept { return states_[0].begun.load() != 0; }
  void shown() noexcept { states_[0].left.fetch_add(1); }
  bool all_shown() const noexcept { return states_[0].left.load() >= size_; }

 private:
  struct state {
    std::atomic<int> rank{-1}, begun{0}, left{0};
    std::atomic<bool> failed{false};
  };
  static_assert(std::atomic<int>::is_always_lock_free, "atomics between processes have to be free of locks");

  std::string missing(int begun) const {
    std::string ranks;
    for (int r = 1; r <= size_; ++r)
      if (states_[r].left.load() < begun) ranks += (ranks.empty() ? "" : ", ") + std::to_string(states_[r].rank.load());
    return ranks;
  }

  MPI_Comm node_ = MPI_COMM_NULL;
  MPI_Win window_ = MPI_WIN_NULL;
  int size_ = 1;
  state* states_ = nullptr;  // the first: of the end of the job; then one for each rank
  state* own_ = nullptr;
};

}  // namespace shardkit::testing::detail
