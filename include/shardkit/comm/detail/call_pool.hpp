// Objects used again and again, such as the calls under way that a decorator has wrapped: a steady state allocates
// nothing.
#pragma once

#include <sched.h>

#include <atomic>
#include <cstddef>
#include <memory>
#include <vector>

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
    while (held_.test_and_set(std::memory_order_acquire)) sched_yield();
  }
  void unlock() noexcept { held_.clear(std::memory_order_release); }

 private:
  std::atomic_flag held_ = ATOMIC_FLAG_INIT;
};

template <class Entry, class Lock = no_lock>
class call_pool {
 public:
  Entry& take() {
    const holding held(lock_);
    if (idle_.empty()) {
      idle_.reserve(all_.size() + 1);
      all_.push_back(std::unique_ptr<Entry>(new Entry));  // whose constructor may be for pools alone
      return *all_.back();
    }
    Entry& entry = *idle_.back();
    idle_.pop_back();
    return entry;
  }
  void give_back(Entry& entry) noexcept {
    const holding held(lock_);
    idle_.push_back(&entry);
  }

 private:
  struct holding {
    explicit holding(Lock& one) noexcept : lock(one) { lock.lock(); }
    holding(const holding&) = delete;
    holding& operator=(const holding&) = delete;
    ~holding() { lock.unlock(); }
    Lock& lock;
  };

  Lock lock_;
  std::vector<std::unique_ptr<Entry>> all_;
  std::vector<Entry*> idle_;  // has room for all, so that giving back cannot fail
};

}  // namespace shardkit::detail
