// Calls on device memory under way: each goes through staging memory in rounds, of which one is copied from the device,
// another is with MPI, and a third is copied back. Every test and wait of this process moves all of them along.
#pragma once

#include <shardkit/backends/detail/mpi_cuda_posting.hpp>
#include <shardkit/backends/detail/mpi_cuda_slot.hpp>
#include <shardkit/comm/detail/call_pool.hpp>
#include <shardkit/cuda/device.hpp>

#include <cstddef>
#include <cstdio>
#include <exception>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace shardkit::detail {

class mpi_cuda_operation;

/// What is to be done for a call: all of it, or only what comes before MPI gets it.
enum class mpi_cuda_task { call, wait_for_stream, wait_for_order };

/// What all communicators that are split from one have in common: the device, staging memory, and what is under way.
/// Threads that may be in calls at once take turns in it.
class mpi_cuda_engine {
 public:
  mpi_cuda_engine(std::size_t bytes, bool says_aware, bool may_stage, double patience, int ranks)
      : round_bytes(bytes),
        direct(says_aware),
        stages(may_stage),
        spins(spins_for(!have_cores(ranks))),
        device(current_cuda_device()),
        slots_(may_stage ? bytes : 0, patience) {}

  /// Puts a call behind those that are under way. Both are kept until it is released.
  mpi_cuda_operation& begin(const shared<mpi_state>& state, const std::shared_ptr<mpi_cuda_engine>& self,
                            const any_call& call, mpi_cuda_task task = mpi_cuda_task::call);
  /// Moves everything along; true where `asked` is complete. Throws what went wrong with that; what goes wrong with
  /// others is theirs to throw.
  bool advance(mpi_cuda_operation* asked);
  void end(mpi_cuda_operation& one) noexcept;

  const std::size_t round_bytes;
  const bool direct, stages;
  const int spins;
  const int device;

 private:
  friend class mpi_cuda_operation;

  struct holding {
    explicit holding(pool_lock& one) noexcept : lock(one) { lock.lock(); }
    holding(const holding&) = delete;
    holding& operator=(const holding&) = delete;
    ~holding() { lock.unlock(); }
    pool_lock& lock;
  };

  pool_lock lock_;
  mpi_cuda_slots slots_;
  std::vector<mpi_cuda_operation*> active_;  // in the order of their start
  call_pool<mpi_cuda_operation> operations_;
};

/// One call. Its rounds are read, posted and completed in order, at most two of them at a time.
class mpi_cuda_operation : public pending_call {
 public:
  virtual ~mpi_cuda_operation() = default;

  bool test() override {
    if (engine_->advance(this)) return true;
    state_->launch->require_alive();
    return false;
  }
  void wait() override {
    if (wait_for(
            engine_->spins, deadline(), [&, this] { return test(); }, [] { return false; }) != wait_result::ready)
      expire();
  }
  double deadline() const noexcept override { return state_->launch->limits().operation; }
  [[noreturn]] void expire() override {
    char what[240];
    const char* const reason =
        posted_ == finished_
            ? "the stream has not come to it, where a kernel or copy is slow or stuck, or an earlier call "
              "is not complete"
            : "a peer has not made its part of it";
    std::snprintf(what, sizeof what, "%s was not complete at the operation deadline of %g s: %s", name_, deadline(),
                  reason);
    state_->launch->fail(what);
    throw timeout_error(what);
  }
  void release() noexcept override {
    // This object may go with them.
    const std::shared_ptr<mpi_cuda_engine> engine = engine_;
    const shared<mpi_state> state = state_;
    engine->end(*this);
  }

 private:
  friend class mpi_cuda_engine;
  friend class call_pool<mpi_cuda_operation>;

  static constexpr std::size_t at_once = 2;
  struct round_in_work {
    mpi_cuda_slot* slot = nullptr;
    mpi_pending* pending = nullptr;
  };

  mpi_cuda_operation() = default;

  /// Peers would wait for ever.
  void fail_as_dropped() noexcept { state_->launch->fail_as_dropped(name_); }
  /// After a failure MPI may still read and write staging memory, for as long as it waits for peers. That keeps no
  /// caller: the call stays, and keeps engine and communicator until the process ends.
  bool is_left_to_mpi() const noexcept {
    if (over_ || direct_) return false;
    for (const round_in_work& one : rounds_in_work_)
      if (one.pending != nullptr) return true;
    return false;
  }

  void open(const shared<mpi_state>& state, const std::shared_ptr<mpi_cuda_engine>& engine, const any_call& call,
            mpi_cuda_task task) {
    state_ = state;
    engine_ = engine;
    call_ = call;
    posts_ = task == mpi_cuda_task::call;
    rounds_ = fetched_ = posted_ = finished_ = 0;
    over_ = false;
    error_ = nullptr;
    peer_ = -1;
    visit(
        [&, this](const auto& one) {
          using call_type = std::decay_t<decltype(one)>;
          name_ = call_type::name;
          where_ = at<cuda_space>(cuda_space::from_native(one.stream), one.site);
          if constexpr (!std::is_same_v<call_type, send_recv_call>) sides_ = mpi_cuda_sides_of(*state_, one);
          if constexpr (is_message<call_type> && !std::is_same_v<call_type, send_recv_call>) peer_ = one.peer;
        },
        call_);
    if (task == mpi_cuda_task::wait_for_order) sides_.follows_stream = false;
    direct_ = engine_->direct && peer_ >= 0;
    each_ = engine_->round_bytes / (sides_.shares * size_of(sides_.type));
    if (direct_) each_ = sides_.longest;
    rounds_ =
        sides_.longest == 0 ? (sides_.even_if_empty ? 1 : 0) : sides_.longest / each_ + (sides_.longest % each_ != 0);
  }

  /// Whether MPI matches the two calls with those of the peers in the order in which they are posted.
  bool is_ordered_with(const mpi_cuda_operation& other) const noexcept {
    return state_.get() == other.state_.get() && peer_ == other.peer_ && (peer_ < 0 || call_.is_like(other.call_));
  }

  /// Does what can be done now. `first`: no other call has to be posted before.
  bool advance(bool first) {
    for (bool moved = true; moved;) {
      moved = false;
      if (finished_ < posted_ && (!posts_ || current(finished_).pending->test())) deliver(finished_++), moved = true;
      if (first && posted_ < fetched_ && current(posted_).slot->use.over(where_.site)) post(posted_++), moved = true;
      if (fetched_ < rounds_ && fetched_ - finished_ < at_once) fetch(fetched_++), moved = true;
    }
    return finished_ == rounds_;
  }
  bool is_posted() const noexcept { return posted_ == rounds_; }

  round_in_work& current(std::size_t round) noexcept { return rounds_in_work_[round % at_once]; }
  mpi_cuda_round round_at(std::size_t number) {
    std::byte* const memory = current(number).slot->memory.data();
    if (direct_)
      return {static_cast<std::byte*>(sides_.in.data), static_cast<std::byte*>(sides_.out.data), 0, each_, 1};
    mpi_cuda_round round{memory, memory, number, each_, rounds_};
    const std::size_t element = size_of(sides_.type);
    if (sides_.in_among_out) {
      const int rank = state_->rank;
      round.in += mpi_cuda_packed(sides_.out, round)(rank).offset * element;
    } else {
      constexpr std::size_t line = mpi_cuda_slots::alignment;
      round.out += (sides_.in.elements(number, each_) * element + line - 1) / line * line;
    }
    return round;
  }

  void fetch(std::size_t number) {
    round_in_work& now = current(number);
    const std::size_t element = size_of(sides_.type);
    if (now.slot == nullptr) {
      // The first round is the largest.
      const std::size_t elements = direct_ ? 0 : sides_.in.elements(0, each_) + sides_.out.elements(0, each_);
      now.slot = &engine_->slots_.take(elements == 0 ? 0 : elements * element + mpi_cuda_slots::alignment);
    }
    // What MPI is to read, or all that it gets: then the stream has to have come here.
    const bool reads = sides_.in.parts != 0 && sides_.longest != 0;
    if (!reads && !sides_.follows_stream && !direct_) return;
    now.slot->use.order_before(where_);
    if (!direct_) mpi_cuda_copy_round(sides_.in, sides_.type, number, each_, round_at(number).in, false, where_);
    now.slot->use.set(where_);
  }
  void post(std::size_t number) {
    if (!posts_) return;
    round_in_work& now = current(number);
    now.pending = &state_->pending(name_, where_.site);
    const mpi_cuda_round round = round_at(number);
    state_->run(name_, where_.site, [&, this] {
      visit(
          [&, this](const auto& one) {
            if constexpr (!std::is_same_v<std::decay_t<decltype(one)>, send_recv_call>)
              mpi_cuda_post(*state_, *now.pending, sides_, round, one);
          },
          call_);
    });
  }
  void deliver(std::size_t number) {
    round_in_work& now = current(number);
    if (now.pending != nullptr) std::exchange(now.pending, nullptr)->release();
    if (direct_ || sides_.out.parts == 0 || sides_.longest == 0) return;
    mpi_cuda_copy_round(sides_.out, sides_.type, number, each_, round_at(number).out, true, where_);
    now.slot->use.set(where_);
  }
  void close() noexcept {
    for (round_in_work& one : rounds_in_work_) {
      if (one.pending != nullptr) std::exchange(one.pending, nullptr)->release();
      if (one.slot != nullptr) engine_->slots_.give_back(*std::exchange(one.slot, nullptr));
    }
  }

  shared<mpi_state> state_;
  std::shared_ptr<mpi_cuda_engine> engine_;
  any_call call_;
  mpi_cuda_sides sides_;
  const char* name_ = "";
  at<cuda_space> where_;
  int peer_ = -1;  // of a message
  bool posts_ = true;
  bool direct_ = false;  // MPI gets the device memory itself
  std::size_t each_ = 0, rounds_ = 0;
  std::size_t fetched_ = 0, posted_ = 0, finished_ = 0;  // rounds
  round_in_work rounds_in_work_[at_once];
  bool over_ = false;
  std::exception_ptr error_;
};

inline mpi_cuda_operation& mpi_cuda_engine::begin(const shared<mpi_state>& state,
                                                  const std::shared_ptr<mpi_cuda_engine>& self, const any_call& call,
                                                  mpi_cuda_task task) {
  const holding held(lock_);
  mpi_cuda_operation& one = operations_.take();
  one.open(state, self, call, task);
  active_.push_back(&one);
  return one;
}

inline bool mpi_cuda_engine::advance(mpi_cuda_operation* asked) {
  const holding held(lock_);
  std::size_t kept = 0;
  for (std::size_t i = 0; i < active_.size(); ++i) {
    mpi_cuda_operation& one = *active_[i];
    try {
      const cuda_device_guard there(device, one.where_.site);
      bool first = true;
      for (std::size_t before = 0; before < kept && first; ++before)
        first = active_[before]->is_posted() || !one.is_ordered_with(*active_[before]);
      one.over_ = one.advance(first);
      if (one.over_) one.close();
      else active_[kept++] = &one;
    } catch (...) {
      one.error_ = std::current_exception();
      one.state_->launch->fail_as_caught();
    }
  }
  active_.resize(kept);
  if (asked == nullptr) return false;
  if (asked->error_) std::rethrow_exception(asked->error_);
  return asked->over_;
}

inline void mpi_cuda_engine::end(mpi_cuda_operation& one) noexcept {
  const holding held(lock_);
  for (std::size_t i = 0; i < active_.size(); ++i)
    if (active_[i] == &one) {
      active_.erase(active_.begin() + static_cast<std::ptrdiff_t>(i));
      break;
    }
  if (!one.over_ && !one.error_) one.fail_as_dropped();
  if (one.is_left_to_mpi()) return;
  one.close();
  one.state_ = {};
  one.engine_.reset();
  operations_.give_back(one);
}

}  // namespace shardkit::detail
