// How processes that have nothing in common yet get started together: rank 0 hands a small blob (a NCCL id, an address)
// to all others. Implementations are in launch/: over threads, TCP, a shared folder, any communicator, or the user's
// own functions.
#pragma once

#include <cstddef>
#include <vector>

namespace shardkit {

/// A rank's end. Both calls are collective, are made by all ranks in the same order, and end at the init deadline with
/// a timeout_error that names the ranks which never came. Afterwards the bootstrap is of no further use.
class bootstrap {
 public:
  using blob = std::vector<char>;  ///< bytes that mean something to the caller alone
  /// Bytes that a blob may have.
  static constexpr std::size_t largest_blob = std::size_t{1} << 20;

  virtual ~bootstrap() = default;
  virtual int rank() const noexcept = 0;
  virtual int size() const noexcept = 0;

  /// Returns rank 0's blob, of at most `largest_blob` bytes, on every rank; what the others pass is ignored.
  virtual blob broadcast(const blob& from_rank_0) = 0;
  /// Returns after all ranks have called it.
  virtual void barrier() = 0;
};

}  // namespace shardkit
