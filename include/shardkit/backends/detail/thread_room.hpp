// The shared memory of one communicator of thread ranks, and the protocol by which its ranks meet.
//
// Each call has a number, the same on all ranks. A rank publishes a line for it: the number, a fingerprint of the
// call, and either its whole contribution (inline, up to 88 bytes) or pointers to its buffers. Having seen the
// peers' lines, a rank reads the buffers, and after pointers it publishes `done`; nobody returns before all are
// done, because its buffers may still be read. Lines alternate between two, so a line is free again once every
// peer has published the call after it.
#pragma once

#include <shardkit/backends/detail/thread_channel.hpp>
#include <shardkit/backends/detail/thread_letters.hpp>
#include <shardkit/backends/detail/thread_progress.hpp>
#include <shardkit/comm/detail/waiting.hpp>
#include <shardkit/comm/fingerprint.hpp>
#include <shardkit/comm/launch_state.hpp>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

namespace shardkit::detail {

/// What a rank shows the others of one call.
struct alignas(128) thread_line {
  static constexpr std::size_t inline_bytes = 88;

  struct buffers {
    const void* in;
    void* out;
    const partition* layout;  ///< where the blocks of an uneven all_to_all lie
  };

  std::atomic<std::uint64_t> call{0};
  std::uint64_t fingerprint = 0;
  call_site site;
  union {
    buffers direct;
    alignas(8) unsigned char bytes[inline_bytes];
  };

  thread_line() noexcept : direct{} {}
};

struct thread_slot {
  thread_line lines[2];
  alignas(128) std::atomic<std::uint64_t> done{0};  ///< the last call after which this rank reads no buffers
  std::atomic<bool> withdrawn{false};               ///< this rank gave up within a call and reads no buffers
  std::atomic<std::uint64_t> deferred{0};           ///< the last call that this rank has started and not waited for...
  std::atomic<bool> reading{false};                 ///< ... whose buffers it touches only while this says so
};

/// Shared by all communicators of one launch.
class thread_launch : public launch_state {
 public:
  thread_launch(int size, const deadlines& limits) : launch_state(size, limits), progress_(static_cast<std::size_t>(size)) {}

  thread_progress& progress(int rank) noexcept { return progress_[static_cast<std::size_t>(rank)]; }

 private:
  std::vector<thread_progress> progress_;
};

/// Shared by the ranks of one communicator.
struct thread_room {
  thread_room(std::shared_ptr<thread_launch> of_launch, std::vector<int> ranks_of_launch)
      : launch(std::move(of_launch)),
        launch_ranks(std::move(ranks_of_launch)),
        size(static_cast<int>(launch_ranks.size())),
        spins(spins_for(size)),
        slots(launch_ranks.size()),
        channels(launch_ranks.size() * launch_ranks.size()) {}

  thread_slot& slot(int rank) { return slots[static_cast<std::size_t>(rank)]; }
  thread_line& line(int rank, std::uint64_t call) { return slot(rank).lines[call & 1]; }
  thread_channel& channel(int from, int to) {
    return channels[static_cast<std::size_t>(from) * launch_ranks.size() + static_cast<std::size_t>(to)];
  }
  int launch_rank(int rank) const { return launch_ranks[static_cast<std::size_t>(rank)]; }

  const std::shared_ptr<thread_launch> launch;
  const std::vector<int> launch_ranks;  ///< this communicator's ranks as ranks of the launch
  const int size;
  const int spins;
  std::vector<thread_slot> slots;
  std::vector<thread_channel> channels;
  thread_letters letters;  ///< of the control lanes
};

}  // namespace shardkit::detail
