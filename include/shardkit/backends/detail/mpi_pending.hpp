// Calls that outlive the verb that started them.
#pragma once

#include <shardkit/backends/detail/mpi_transfer.hpp>
#include <shardkit/comm/detail/call_pool.hpp>
#include <shardkit/comm/request.hpp>
#include <shardkit/core/buffer.hpp>
#include <shardkit/core/detail/list.hpp>
#include <shardkit/core/detail/shared.hpp>
#include <shardkit/core/ordered_reduce.hpp>

#include <cstddef>
#include <cstdio>
#include <utility>

namespace shardkit::detail {

/// Divides a sum of f32 or f64 by the number of ranks, in the same way wherever it was summed.
inline void mpi_divide(dtype type, void* sums, std::size_t count, int ranks) noexcept {
  const auto divide = [&](auto* elements, auto by) {
    for (std::size_t i = 0; i < count; ++i) elements[i] /= by;
  };
  if (type == dtype::f64) divide(static_cast<double*>(sums), static_cast<double>(ranks));
  else divide(static_cast<float*>(sums), static_cast<float>(ranks));
}

/// What this rank does with elements that MPI has delivered at `from`, to complete a reduction at `to`.
struct mpi_finish {
  /// Combines the ranks' elements, which lie one rank after the other. Null where MPI has combined them: an average is
  /// then divided, and moved to `to`.
  reduce_function combine;
  reduction_kind kind;
  void* from;
  void* to;
  std::size_t count;
  dtype type;
};

/// A call under way: its requests, what they need until they are complete, and what is to be done then. All of its
/// messages and collectives are known to MPI from the start, so that they go on whenever this rank is in any call.
class mpi_pending : public pending_call {
 public:
  using pool_type = call_pool<mpi_pending>;

  mpi_pending(pool_type& pool, mpi_launch& launch, mpi_call_slot& slot, std::size_t piece_bytes) noexcept
      : transfer(launch, piece_bytes), pool_(pool), launch_(launch), slot_(slot) {}
  virtual ~mpi_pending() = default;

  /// `owner` keeps the communicator, and with it the pool, until the call is released.
  mpi_pending& begin(shared<shared_object> owner, const char* name, const call_site& site) noexcept {
    owner_ = std::move(owner);
    name_ = name;
    site_ = site;
    return *this;
  }

  /// Memory for `count` elements of T, not initialised, until the call is complete.
  template <class T>
  T* room(std::size_t count) {
    if (rooms_used_ == rooms_.size()) rooms_.emplace_back();
    buffer<std::byte>& room = rooms_[rooms_used_++];
    if (room.size() < count * sizeof(T)) room = buffer<std::byte>(count * sizeof(T));
    return reinterpret_cast<T*>(room.data());
  }
  /// Frees `type` once the call is complete.
  void keep(MPI_Datatype type) { types_.push_back(type); }
  void finish_with(const mpi_finish& step, int ranks) {
    finishes_.push_back(step);
    if (inputs_.size() != static_cast<std::size_t>(ranks)) inputs_ = list<const void*>(static_cast<std::size_t>(ranks));
  }

  bool test() override {
    return launch_.run(slot_, name_, site_, [&, this] {
      if (!transfer.test()) return false;
      finish();
      return true;
    });
  }
  void wait() override {
    launch_.run(slot_, name_, site_, [&, this] {
      transfer.wait();
      finish();
    });
  }
  double deadline() const noexcept override { return launch_.limits().operation; }
  [[noreturn]] void expire() override {
    char what[200];
    std::snprintf(what, sizeof what,
                  "%s was not complete at the operation deadline of %g s: a peer has not made its part of it", name_,
                  deadline());
    launch_.fail(what);
    throw timeout_error(what);
  }
  void release() noexcept override {
    if (!transfer.empty()) {
      launch_.fail_as_dropped(name_);
      const mpi_in_call in_call(slot_, name_, site_, mpi_in_call::even_after_failure{});
      transfer.abandon();
    }
    clear();
    const auto owner = std::move(owner_);  // may be the last, and take this object with it
    pool_.give_back(*this);
  }

  mpi_transfer transfer;

 private:
  void finish() {
    for (const mpi_finish& step : finishes_) {
      if (step.combine != nullptr) {
        const std::size_t bytes = step.count * size_of(step.type);
        for (std::size_t r = 0; r < inputs_.size(); ++r) inputs_[r] = static_cast<const char*>(step.from) + r * bytes;
        void* to = step.to;
        step.combine(step.kind, inputs_.data(), static_cast<int>(inputs_.size()), &to, 1, step.count);
        continue;
      }
      if (step.kind == reduction_kind::average)
        mpi_divide(step.type, step.from, step.count, static_cast<int>(inputs_.size()));
      if (step.from != step.to) host_space::copy(step.to, step.from, step.count * size_of(step.type));
    }
    clear();
  }
  void clear() noexcept {
    if (!types_.empty() && mpi_is_running())
      for (MPI_Datatype& type : types_) MPI_Type_free(&type);
    types_.clear();
    finishes_.clear();
    rooms_used_ = 0;
  }

  pool_type& pool_;
  mpi_launch& launch_;
  mpi_call_slot& slot_;
  shared<shared_object> owner_;
  const char* name_ = "";
  call_site site_;
  // Kept with their capacity, so that a steady state allocates nothing.
  list<buffer<std::byte>> rooms_;
  std::size_t rooms_used_ = 0;
  list<MPI_Datatype> types_;
  list<mpi_finish> finishes_;
  list<const void*> inputs_;  // of a combination, one for each rank
};

}  // namespace shardkit::detail
