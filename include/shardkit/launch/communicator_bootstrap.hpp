// A bootstrap over any communicator: MPI's world hands out the id of a NCCL communicator, thread ranks theirs.
//
//   mpi_environment mpi(argc, argv);
//   auto world = mpi.world();
//   communicator_bootstrap start(world);
#pragma once

#include <shardkit/comm/blobs.hpp>
#include <shardkit/comm/communicator.hpp>
#include <shardkit/launch/detail/bootstrap_errors.hpp>

#include <cstddef>

namespace shardkit {

/// Waits and errors are the communicator's: its operation deadline, its naming of ranks. The communicator outlives it.
template <class Backend>
class communicator_bootstrap final : public bootstrap {
 public:
  explicit communicator_bootstrap(communicator<Backend>& comm) : comm_(comm) {}

  int rank() const noexcept override { return comm_.rank(); }
  int size() const noexcept override { return comm_.size(); }
  blob broadcast(const blob& from_rank_0) override {
    // All see the length before anything is sent, so that all refuse one that is too large.
    const std::size_t length = comm_.exchange(from_rank_0.size()).front();
    detail::require_bootstrap_length(length);
    return broadcast_bytes(comm_, from_rank_0, 0);
  }
  void barrier() override { comm_.barrier(); }

 private:
  communicator<Backend>& comm_;
};

}  // namespace shardkit
