// How what one rank has under way on several communicators goes on, whichever of them it waits on, and from whichever
// of its threads.
#pragma once

#include <shardkit/core/detail/atomic.hpp>

#include <sched.h>

namespace shardkit::detail {

/// A lock that is held for as long as a call lasts. The thread that holds it may take it again.
class thread_lock {
 public:
  /// Holds it while it lives, as std::lock_guard does, whose header takes long to compile.
  class guard {
   public:
    explicit guard(thread_lock& lock) noexcept : lock_(lock) { lock_.lock(); }
    guard(const guard&) = delete;
    guard& operator=(const guard&) = delete;
    ~guard() { lock_.unlock(); }

   private:
    thread_lock& lock_;
  };

  [[gnu::noinline]] void lock() noexcept {
    while (!try_lock()) sched_yield();
  }
  bool try_lock() noexcept {
    const void* const me = this_thread();
    const void* holder = holder_.load(memory_order_relaxed);
    if (holder != me) {
      holder = nullptr;
      if (!holder_.compare_exchange_strong(holder, me, memory_order_acquire, memory_order_acquire)) return false;
    }
    ++depth_;
    return true;
  }
  /// True where the lock is free now.
  bool is_last() const noexcept { return depth_ == 1; }
  void unlock() noexcept {
    if (--depth_ == 0) holder_.store(nullptr, memory_order_release);
  }

 private:
  static const void* this_thread() noexcept {
    static thread_local char mark;
    return &mark;
  }

  atomic<const void*> holder_{nullptr};
  int depth_ = 0;
};

/// What takes one communicator's calls as far as they go without waiting; nothing where another thread is at it.
class thread_worker {
 public:
  virtual void try_go_on() noexcept = 0;

 protected:
  ~thread_worker() = default;

 private:
  friend class thread_progress;
  thread_worker* next_ = nullptr;
};

/// The communicators of one rank of a launch that have calls under way.
class thread_progress {
 public:
  // Linked through the workers: called where nothing may fail.
  void add(thread_worker& worker) noexcept {
    lock_.lock();
    worker.next_ = first_.load(memory_order_relaxed);
    first_.store(&worker, memory_order_relaxed);
    lock_.unlock();
  }
  void remove(thread_worker& worker) noexcept {
    lock_.lock();
    if (first_.load(memory_order_relaxed) == &worker) first_.store(worker.next_, memory_order_relaxed);
    for (thread_worker* each = first_.load(memory_order_relaxed); each != nullptr; each = each->next_)
      if (each->next_ == &worker) each->next_ = worker.next_;
    lock_.unlock();
  }
  /// Whether none of them has.
  bool idle() const noexcept { return first_.load(memory_order_relaxed) == nullptr; }
  /// All but `own`.
  void go_on(const thread_worker* own) noexcept {
    if (idle() || !lock_.try_lock()) return;
    for (thread_worker* worker = first_.load(memory_order_relaxed); worker != nullptr; worker = worker->next_)
      if (worker != own) worker->try_go_on();
    lock_.unlock();
  }

 private:
  thread_lock lock_;
  atomic<thread_worker*> first_{nullptr};
};

}  // namespace shardkit::detail
