// How a load plan's bytes get into device memory: through a ring of pinned memory, of which one block is filled from
// the file while those before it are copied.
//
//   buffer<std::byte, cuda_space> arena(plan.bytes());
//   device_ring ring;                            // for all plans of this rank
//   plan.load(comm, arena, ring, stream);
//   matrix_view<bfloat16, cuda_space> w = up.matrix_in<bfloat16>(arena);
#pragma once

#include <shardkit/comm/deadlines.hpp>
#include <shardkit/core/buffer.hpp>
#include <shardkit/core/error.hpp>
#include <shardkit/cuda/detail/last_use.hpp>
#include <shardkit/cuda/device.hpp>
#include <shardkit/cuda/pinned_space.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <string>
#include <utility>

namespace shardkit {

/// For one device_ring.
struct device_ring_options {
  /// All the pinned memory of this rank's loading: from least_bytes to most_bytes.
  std::size_t bytes = std::size_t{16} << 20;
  /// Seconds that the host may wait for the stream to take a block.
  double deadline = deadlines().operation;

  static constexpr std::size_t least_bytes = 8192;                  ///< the least that may be asked for
  static constexpr std::size_t most_bytes = std::size_t{64} << 20;  ///< the most that may be asked for
};

/// Pinned memory for loading to the device that was current when it was made. One load at a time; loads may follow each
/// other on any streams. The destructor waits until the last copies are done, at most for the deadline.
class device_ring {
 public:
  using device_space = cuda_space;  ///< where the arena lies

  /// Throws usage_error where the options are out of range.
  explicit device_ring(const device_ring_options& options = {}, const call_site& site = call_site::current())
      : device_(current_cuda_device(site)), deadline_(options.deadline) {
    if (options.bytes < options.least_bytes || options.bytes > options.most_bytes)
      throw usage_error("device_ring: " + std::to_string(options.bytes) + " bytes; it takes from " +
                        std::to_string(options.least_bytes) + " to " + std::to_string(options.most_bytes));
    if (!(deadline_ > 0))
      throw usage_error("device_ring: the deadline is " + std::to_string(deadline_) +
                        " seconds; it has to be positive, or no_deadline to wait for ever");
    staging_bytes_ = std::clamp<std::size_t>(options.bytes / 4, 4096, longest_window);
    block_bytes_ = (options.bytes - staging_bytes_) / blocks_.size() / alignment * alignment;
    memory_ = buffer<std::byte, pinned_space>(options.bytes, site);
  }
  device_ring(const device_ring&) = delete;
  device_ring& operator=(const device_ring&) = delete;
  ~device_ring() {
    for (detail::last_use& block : blocks_)
      if (!block.wait_before_freeing(deadline_)) {
        static_cast<void>(new buffer<std::byte, pinned_space>(std::move(memory_)));  // the device may still read it
        return;
      }
  }

  /// The pinned memory there is.
  std::size_t bytes() const noexcept { return memory_.size(); }

  /// What load_plan::load calls: load(destination, staging) writes parts of an arena, which are copied to `arena` on
  /// the stream. Throws usage_error on another device than the ring's and during capture, before anything is done;
  /// timeout_error where the stream does not take a block by the deadline.
  template <class Load>
  auto fill(std::byte* arena, at<cuda_space> where, Load load) {
    const int current = current_cuda_device(where.site);
    if (current != device_)
      throw usage_error("the ring was made on device " + std::to_string(device_) + ", and the current device is " +
                        std::to_string(current) + "; make a ring for each device");
    if (where.stream.is_captured(where.site))
      throw usage_error("loading reads files, and cannot be captured into a graph: load before the capture");
    destination to(*this, arena, where);
    auto result = load(to, view<std::byte>(memory_.data(), staging_bytes_));
    to.finish();
    return result;
  }

 private:
  static constexpr std::size_t alignment = 64;
  static constexpr std::size_t longest_window = std::size_t{1} << 20;  // of runs that are read with their gaps

  /// See detail::arena_destination. Short parts share a block.
  class destination {
   public:
    destination(device_ring& ring, std::byte* arena, at<cuda_space> where) noexcept
        : ring_(ring), arena_(arena), where_(where) {}
    destination(const destination&) = delete;
    destination& operator=(const destination&) = delete;
    ~destination() {
      // Where the load has thrown, copies from this block may be on their way.
      try {
        leave_block();
      } catch (const error&) {
        // The device is broken, which its next use tells.
      }
    }

    void begin(std::size_t offset) {
      send();
      used_ = std::min((used_ + part_alignment - 1) / part_alignment * part_alignment, ring_.block_bytes_);
      to_ = offset;
    }
    view<std::byte> room(std::size_t least) {
      if (!in_block_ || ring_.block_bytes_ - used_ < least) next_block();
      return {block() + used_, ring_.block_bytes_ - used_};
    }
    void written(std::size_t bytes) noexcept {
      used_ += bytes;
      waiting_ += bytes;
    }
    void finish() {
      send();
      leave_block();
    }

   private:
    static constexpr std::size_t part_alignment = 16;

    std::byte* block() const noexcept {
      return ring_.memory_.data() + ring_.staging_bytes_ + ring_.next_ * ring_.block_bytes_;
    }
    /// Enqueues the copy of what has been written since the last.
    void send() {
      if (waiting_ == 0) return;
      cuda_space::copy(arena_ + to_, block() + used_ - waiting_, waiting_, where_);
      to_ += std::exchange(waiting_, 0);
    }
    void leave_block() {
      if (!std::exchange(in_block_, false)) return;
      ring_.blocks_[ring_.next_].set(where_);
      ring_.next_ = (ring_.next_ + 1) % ring_.blocks_.size();
    }
    void next_block() {
      send();
      leave_block();
      if (!ring_.blocks_[ring_.next_].wait(ring_.deadline_, where_.site))
        throw timeout_error("the stream had not copied a block of the ring after " + std::to_string(ring_.deadline_) +
                            " seconds: a kernel or copy before it is slow or stuck");
      in_block_ = true;
      used_ = 0;
    }

    device_ring& ring_;
    std::byte* const arena_;
    const at<cuda_space> where_;
    bool in_block_ = false;
    std::size_t used_ = 0;     // of the block
    std::size_t waiting_ = 0;  // its last bytes, which are not on their way yet
    std::size_t to_ = 0;       // where they go in the arena
  };

  const int device_;
  const double deadline_;
  std::size_t staging_bytes_ = 0, block_bytes_ = 0;
  buffer<std::byte, pinned_space> memory_;  // staging, then the blocks
  std::array<detail::last_use, 4> blocks_;
  std::size_t next_ = 0;
};

}  // namespace shardkit
