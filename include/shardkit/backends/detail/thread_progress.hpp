// How what one rank has under way on several communicators goes on, whichever of them it waits on, and from whichever
// of its threads.
#pragma once

#include <sched.h>

#include <atomic>

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

  void lock() noexcept {
    while (!try_lock()) sched_yield();
  }
  bool try_lock() noexcept {
    const void* const me = this_thread();
    const void* holder = holder_.load(std::memory_order_relaxed);
    if (holder != me) {
      holder = nullptr;
      if (!holder_.compare_exchange_strong(holder, me, std::memory_order_acquire)) return false;
    }
    ++depth_;
    return true;
  }
  /// True where the lock is free now.
  bool is_last() const noexcept { return depth_ == 1; }
  void unlock() noexcept {
    if (--depth_ == 0) holder_.store(nullptr, std::memory_order_release);
  }

 private:
  static const void* this_thread() noexcept {
    static thread_local char mark;
    return &mark;
  }

  std::atomic<const void*> holder_{nullptr};
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
    worker.next_ = first_.load(std::memory_order_relaxed);
    first_.store(&worker, std::memory_order_relaxed);
    lock_.unlock();
  }
  void remove(thread_worker& worker) noexcept {
    lock_.lock();
    if (first_.load(std::memory_order_relaxed) == &worker) first_.store(worker.next_, std::memory_order_relaxed);
    for (thread_worker* each = first_.load(std::memory_order_relaxed); each != nullptr; each = each->next_)
      if (each->next_ == &worker) each->next_ = worker.next_;
    lock_.unlock();
  }
  /// All but `own`.
  void go_on(const thread_worker* own) noexcept {
    if (first_.load(std::memory_order_relaxed) == nullptr || !lock_.try_lock()) return;
    for (thread_worker* worker = first_.load(std::memory_order_relaxed); worker != nullptr; worker = worker->next_)
      if (worker != own) worker->try_go_on();
    lock_.unlock();
  }

 private:
  thread_lock lock_;
  std::atomic<thread_worker*> first_{nullptr};
};

}  // namespace shardkit::detail
