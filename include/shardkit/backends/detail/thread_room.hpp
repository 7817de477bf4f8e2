// The shared memory of one communicator of thread ranks, and the protocol by which its ranks meet.
//
// Each call has a number, the same on all ranks. A rank publishes a line for it: the number, a fingerprint of all calls
// so far, and its contribution: inside the line where it is small, else in a box, or as pointers to its buffers. Having
// seen the peers' lines, a rank reads what they contribute, and after pointers it publishes `done`; nobody returns
// before all are done, because its buffers may still be used. Lines and boxes are used in turn, so that one is free
// again once every peer has published a call after it: the root of a broadcast, who needs no peer's line, can be a few
// calls ahead of those that wait for a core.
#pragma once

#include <shardkit/backends/detail/thread_channel.hpp>
#include <shardkit/backends/detail/thread_letters.hpp>
#include <shardkit/backends/detail/thread_progress.hpp>
#include <shardkit/backends/detail/thread_waits.hpp>
#include <shardkit/comm/fingerprint.hpp>
#include <shardkit/comm/launch_state.hpp>
#include <shardkit/core/buffer.hpp>
#include <shardkit/core/detail/atomic.hpp>
#include <shardkit/core/detail/list.hpp>
#include <shardkit/core/detail/shared.hpp>
#include <shardkit/core/detail/waiting.hpp>

#include <cstddef>
#include <cstdint>
#include <utility>

namespace shardkit::detail {

/// What a rank shows the others of one call.
struct alignas(128) thread_line {
  static constexpr std::size_t inline_bytes = 112;

  struct buffers {
    const void* in;
    void* out;
    const partition* layout = nullptr;  ///< where the blocks of an uneven all_to_all lie
    bool without_own = false;           ///< the part that no peer reads is left out
    int staged_calls = 0;               ///< for how many calls after this one the rank means to stage
    std::uint64_t capture = 0;          ///< of the device's stream; 0 where it is not captured into a graph
  };

  atomic<std::uint64_t> call{0};
  std::uint64_t history = 0;  ///< thread_record's
  union {
    buffers direct;
    alignas(8) unsigned char bytes[inline_bytes];
  };

  thread_line() noexcept : direct{nullptr, nullptr} {}
};

/// What a rank remembers of one call; apart from the line, since peers look only where they have not seen that.
struct thread_record {
  std::uint64_t fingerprint = 0;  ///< of the call
  std::uint64_t history = 0;      ///< of this call and all before it: equal only where all of them are
  call_site site;
};

struct thread_slot {
  static constexpr std::uint64_t depth = 4;  ///< how many calls the lines hold
  static constexpr std::uint64_t no_end = ~std::uint64_t{0};

  thread_line lines[depth];
  thread_record records[2 * depth];  ///< longer, so that who is that far behind can still compare what it skipped
  alignas(128) atomic<std::uint64_t> done{0};  ///< the last call after which this rank reads no buffers
  atomic<std::uint64_t> end{no_end};           ///< the last call of all, once this rank will make no further one
  atomic<bool> withdrawn{false};               ///< this rank gave up within a call and reads no buffers
  atomic<std::uint64_t> deferred{0};           ///< the last call that this rank has started and not waited for...
  atomic<bool> reading{false};                 ///< ... whose buffers it touches only while this says so
  shared<shared_object> device_end;  ///< what the rank shows of its device, for as long as the room; set by itself
};

/// Shared by all communicators of one launch.
class thread_launch final : public shared_object, public launch_state {
 public:
  thread_launch(int size, const deadlines& limits)
      : launch_state(size, limits), progress_(static_cast<std::size_t>(size)), waits_(static_cast<std::size_t>(size)) {}

  thread_progress& progress(int rank) noexcept { return progress_[static_cast<std::size_t>(rank)]; }
  thread_waits& waits(int rank) noexcept { return waits_[static_cast<std::size_t>(rank)]; }

  /// Of a failure that the rank that found it could not throw: to be thrown to whoever launched the ranks.
  void leave_to_caller() noexcept { left_to_caller_.store(true, memory_order_release); }
  bool left_to_caller() const noexcept { return left_to_caller_.load(memory_order_acquire); }

 private:
  list<thread_progress> progress_;
  list<thread_waits> waits_;
  atomic<bool> left_to_caller_{false};
};

/// Shared by the ranks of one communicator.
struct thread_room final : shared_object {
  static constexpr std::size_t box_bytes = thread_limits::box;  ///< of memory that is not touched before it is used

  thread_room(shared<thread_launch> of_launch, list<int> ranks_of_launch)
      : launch(std::move(of_launch)),
        launch_ranks(std::move(ranks_of_launch)),
        size(static_cast<int>(launch_ranks.size())),
        crowded(!have_cores(size)),
        spins(spins_for(crowded)),
        slots(launch_ranks.size()),
        boxes(size < 2 ? 0 : 2 * launch_ranks.size() * box_bytes),
        channels(launch_ranks.size() * launch_ranks.size()),
        message_boxes(channels.size()) {}

  thread_slot& slot(int rank) { return slots[static_cast<std::size_t>(rank)]; }
  thread_line& line(int rank, std::uint64_t call) { return slot(rank).lines[call % thread_slot::depth]; }
  thread_record& record(int rank, std::uint64_t call) { return slot(rank).records[call % (2 * thread_slot::depth)]; }
  /// Where `rank` puts what it contributes to `call`. The ranks take the boxes in turn, so that each is written by one
  /// that has read it before: data that goes back and forth between cores travels several times as fast as data that
  /// goes one way. A single rank has none.
  unsigned char* box(int rank, std::uint64_t call) noexcept { return boxes.data() + turn(rank, call) * box_bytes; }
  /// The same for thread_limits::stage bytes, for ranks whose cores are far apart. Allocated when first used.
  unsigned char* stage(int rank, std::uint64_t call) {
    unsigned char* all = stages_.load(memory_order_acquire);
    if (all == nullptr) {
      buffer<unsigned char> fresh(2 * launch_ranks.size() * thread_limits::stage);
      if (stages_.compare_exchange_strong(all, fresh.data(), memory_order_acq_rel, memory_order_acquire)) {
        all = fresh.data();
        stages_owner_ = std::move(fresh);
      }
    }
    return all + turn(rank, call) * thread_limits::stage;
  }
  thread_channel& channel(int from, int to) {
    return channels[static_cast<std::size_t>(from) * launch_ranks.size() + static_cast<std::size_t>(to)];
  }
  /// A box for messages between two ranks, which take it over from each other. Only once, by `from`.
  unsigned char* make_message_box(int from, int to) {
    auto& box = message_boxes[static_cast<std::size_t>(from) * launch_ranks.size() + static_cast<std::size_t>(to)];
    box = buffer<unsigned char>(box_bytes);
    return box.data();
  }
  int launch_rank(int rank) const { return launch_ranks[static_cast<std::size_t>(rank)]; }

  const shared<thread_launch> launch;
  const list<int> launch_ranks;  ///< this communicator's ranks as ranks of the launch
  const int size;
  const bool crowded;  ///< ranks share cores, which change hands whenever one waits for another
  const int spins;
  list<thread_slot> slots;
  buffer<unsigned char> boxes;
  list<thread_channel> channels;
  list<buffer<unsigned char>> message_boxes;  ///< by channel; made by the sender when it first needs one
  thread_letters letters;                     ///< of the control lanes

 private:
  std::uint64_t turn(int rank, std::uint64_t call) const noexcept {
    const auto ranks = static_cast<std::uint64_t>(size), own = static_cast<std::uint64_t>(rank);
    return (call & 1) * ranks + ((call >> 1) + own) % ranks;
  }

  atomic<unsigned char*> stages_{nullptr};
  buffer<unsigned char> stages_owner_;  // set once, by whoever made them
};

}  // namespace shardkit::detail
