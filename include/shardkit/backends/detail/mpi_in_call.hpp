// Marks that a process is inside a call, so that the watchdog can tell where it is stuck. This is all that the
// machinery around failures costs in a call: two loads, a branch and four stores.
#pragma once

#include <shardkit/backends/detail/mpi_failure_board.hpp>
#include <shardkit/core/call_site.hpp>

#include <atomic>
#include <cstdint>

namespace shardkit::detail {

/// The call that a communicator is in. Written by the rank, read by the watchdog. No clock is read here: the watchdog
/// marks a call when it first sees it and counts from then.
struct mpi_call_slot {
  mpi_call_slot(const mpi_failure_board* failures, double seconds) noexcept : board(failures), limit(seconds) {}

  std::atomic<const mpi_failure_board*> board;
  std::atomic<const char*> name{nullptr};  ///< null: in no call
  std::atomic<const char*> file{""};
  std::atomic<std::uint64_t> line{0};  ///< and in bit 32, whether the watchdog has seen the call

  const double limit;  ///< the deadline of its calls, in seconds
  double waited = 0;   ///< the watchdog's own: since it first saw the call
};

/// Scope of one call.
class mpi_in_call {
 public:
  /// Throws peer_failed instead of entering where the launch has failed.
  [[gnu::always_inline]] mpi_in_call(mpi_call_slot& slot, const char* name, const call_site& site) : slot_(slot) {
    const mpi_failure_board* board = slot.board.load(std::memory_order_relaxed);
    if (!board->clear()) [[unlikely]] board->throw_failure();
    enter(name, site);
  }

  /// For the calls that end things after a failure.
  struct even_after_failure {};
  mpi_in_call(mpi_call_slot& slot, const char* name, const call_site& site, even_after_failure) noexcept : slot_(slot) {
    enter(name, site);
  }

  mpi_in_call(const mpi_in_call&) = delete;
  mpi_in_call& operator=(const mpi_in_call&) = delete;
  [[gnu::always_inline]] ~mpi_in_call() { slot_.name.store(nullptr, std::memory_order_relaxed); }

 private:
  void enter(const char* name, const call_site& site) noexcept {
    slot_.file.store(site.file, std::memory_order_relaxed);
    slot_.line.store(static_cast<std::uint32_t>(site.line), std::memory_order_relaxed);
    slot_.name.store(name, std::memory_order_release);
  }

  mpi_call_slot& slot_;
};

}  // namespace shardkit::detail
