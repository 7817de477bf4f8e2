// Pinned memory through which elements travel between a device and MPI.
#pragma once

#include <shardkit/core/buffer.hpp>
#include <shardkit/core/detail/waiting.hpp>
#include <shardkit/cuda/device.hpp>
#include <shardkit/cuda/event.hpp>
#include <shardkit/cuda/pinned_space.hpp>

#include <algorithm>
#include <cstddef>
#include <memory>
#include <vector>

namespace shardkit::detail {

/// Memory of one round, and the event behind the last copy from or to it.
class mpi_cuda_slot {
 public:
  explicit mpi_cuda_slot(std::size_t bytes) : memory_(bytes) {}
  mpi_cuda_slot(const mpi_cuda_slot&) = delete;
  mpi_cuda_slot& operator=(const mpi_cuda_slot&) = delete;

  std::byte* data() noexcept { return memory_.data(); }
  std::size_t size() const noexcept { return memory_.size(); }

  /// Whether the host may use the memory: the last copy is done.
  bool idle(const call_site& site) {
    if (busy_ && last_.reached(site)) busy_ = false;
    return !busy_;
  }
  /// What is enqueued on the stream from now on runs after the last copy.
  void order_before(at<cuda_space> where) {
    if (busy_ && on_.handle != where.stream.handle) last_.order_before(where);
  }
  /// The last copy is what the stream holds now.
  void follow(at<cuda_space> where) {
    last_.record(where);
    on_ = where.stream;
    busy_ = true;
  }
  /// Before it is destroyed: whether the device had done the last copy within so many seconds. Where it had not, the
  /// device is broken or stuck, and the memory has to stay.
  bool quiet(double seconds) noexcept {
    try {
      return wait_for(
                 1000, seconds, [&] { return idle({}); }, [] { return false; }) == wait_result::ready;
    } catch (const error&) {
      return false;
    }
  }

 private:
  buffer<std::byte, pinned_space> memory_;
  cuda_event last_;
  cuda_space::stream on_;
  bool busy_ = false;
};

/// Slots of one device. One thread at a time.
class mpi_cuda_slots {
 public:
  /// What is written begins here apart from what is read.
  static constexpr std::size_t alignment = 64;

  /// Two slots for rounds of this size are made at once.
  mpi_cuda_slots(std::size_t bytes, double patience) : patience_(patience) {
    for (int i = 0; i < 2; ++i) add(bytes == 0 ? 0 : bytes + alignment);
  }
  mpi_cuda_slots(const mpi_cuda_slots&) = delete;
  mpi_cuda_slots& operator=(const mpi_cuda_slots&) = delete;
  ~mpi_cuda_slots() {
    for (auto& slot : all_)
      if (!slot->quiet(patience_)) (void)slot.release();
  }

  /// The smallest idle slot of at least `bytes`, else a new one, which is kept.
  mpi_cuda_slot& take(std::size_t bytes) {
    const auto fits = [&](const mpi_cuda_slot* one) { return one->size() >= bytes; };
    auto found = idle_.end();
    for (auto one = idle_.begin(); one != idle_.end(); ++one)
      if (fits(*one) && (found == idle_.end() || (*one)->size() < (*found)->size())) found = one;
    if (found == idle_.end()) {
      std::size_t rounded = least_bytes;
      while (rounded < bytes) rounded *= 2;
      add(rounded);
      found = idle_.end() - 1;
    }
    mpi_cuda_slot& taken = **found;
    idle_.erase(found);
    return taken;
  }
  void give_back(mpi_cuda_slot& slot) noexcept { idle_.push_back(&slot); }

 private:
  static constexpr std::size_t least_bytes = 4096;

  void add(std::size_t bytes) {
    all_.reserve(all_.size() + 1);
    idle_.reserve(all_.size() + 1);  // room for all, so that giving back cannot fail
    all_.push_back(std::make_unique<mpi_cuda_slot>(bytes));
    idle_.push_back(all_.back().get());
  }

  const double patience_;
  std::vector<std::unique_ptr<mpi_cuda_slot>> all_;
  std::vector<mpi_cuda_slot*> idle_;
};

}  // namespace shardkit::detail
