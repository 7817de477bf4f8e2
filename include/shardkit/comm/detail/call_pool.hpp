// Objects used again and again, such as the calls under way that a decorator has wrapped: a steady state allocates
// nothing.
#pragma once

#include <shardkit/core/detail/atomic.hpp>

#include <sched.h>

#include <cstddef>
#include <utility>

namespace shardkit::detail {

/// For a pool that one thread uses at a time.
struct no_lock {
  void lock() noexcept {}
  void unlock() noexcept {}
};
/// For a pool of several threads. It is held for some instructions, but for those that allocate.
class pool_lock {
 public:
  void lock() noexcept {
    while (held_.exchange(true, memory_order_acquire)) sched_yield();
  }
  void unlock() noexcept { held_.store(false, memory_order_release); }

 private:
  atomic<bool> held_{false};
};

/// Owns its entries, taken or not. They are linked, so that giving back cannot fail.
template <class Entry, class Lock = no_lock>
class call_pool {
 public:
  call_pool() noexcept = default;
  call_pool(const call_pool&) = delete;
  call_pool& operator=(const call_pool&) = delete;
  ~call_pool() {
    while (made_ != nullptr) delete std::exchange(made_, made_->next_made);
  }

  /// How many there are, taken or not.
  std::size_t size() const noexcept { return size_; }
  /// The arguments are those of an entry's constructor, where one has to be made.
  template <class... Arguments>
  Entry& take(Arguments&&... arguments) {
    const holding held(lock_);
    if (idle_ == nullptr) {
      node* const fresh = new node(std::forward<Arguments>(arguments)...);
      fresh->next_made = made_;
      ++size_;
      return *(made_ = fresh);
    }
    return *std::exchange(idle_, idle_->next_idle);
  }
  void give_back(Entry& entry) noexcept {
    const holding held(lock_);
    node& idle = static_cast<node&>(entry);
    idle.next_idle = idle_;
    idle_ = &idle;
  }

 private:
  struct node final : Entry {
    template <class... Arguments>
    explicit node(Arguments&&... arguments) : Entry(std::forward<Arguments>(arguments)...) {}

    node* next_made = nullptr;
    node* next_idle = nullptr;
  };
  struct holding {
    explicit holding(Lock& one) noexcept : lock(one) { lock.lock(); }
    holding(const holding&) = delete;
    holding& operator=(const holding&) = delete;
    ~holding() { lock.unlock(); }
    Lock& lock;
  };

  Lock lock_;
  node* made_ = nullptr;
  node* idle_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace shardkit::detail
