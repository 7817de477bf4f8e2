// Pinned memory through which elements travel between a device and MPI.
#pragma once

#include <shardkit/core/buffer.hpp>
#include <shardkit/cuda/detail/last_use.hpp>
#include <shardkit/cuda/pinned_space.hpp>

#include <cstddef>
#include <memory>
#include <vector>

namespace shardkit::detail {

/// Memory of one round.
struct mpi_cuda_slot {
  explicit mpi_cuda_slot(std::size_t bytes) : memory(bytes) {}

  buffer<std::byte, pinned_space> memory;
  last_use use;
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
      if (!slot->use.wait_before_freeing(patience_)) (void)slot.release();
  }

  /// The smallest idle slot of at least `bytes`, else a new one, which is kept.
  mpi_cuda_slot& take(std::size_t bytes) {
    const auto fits = [&](const mpi_cuda_slot* one) { return one->memory.size() >= bytes; };
    auto found = idle_.end();
    for (auto one = idle_.begin(); one != idle_.end(); ++one)
      if (fits(*one) && (found == idle_.end() || (*one)->memory.size() < (*found)->memory.size())) found = one;
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
