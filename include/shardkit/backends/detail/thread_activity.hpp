// What one rank has under way on one communicator of threads: who takes it further, and who may touch it.
#pragma once

#include <shardkit/backends/detail/thread_progress.hpp>
#include <shardkit/core/detail/atomic.hpp>

#include <cstddef>

namespace shardkit::detail {

/// Base of thread_waiting, and so of the rank's part in the calls.
class thread_activity : private thread_worker {
 public:
  thread_activity(const thread_activity&) = delete;
  thread_activity& operator=(const thread_activity&) = delete;

  /// Work that every wait does between its looks, so that what is under way goes on; null where there is none. It may
  /// throw what ends the wait, through leave_mismatched_call.
  enum class progress_source { messages, collectives };
  void set_progress(progress_source source, void (*function)(void*), void* context) noexcept {
    progress_[static_cast<std::size_t>(source)] = {function, context};
  }

  /// Takes what is under way on this communicator as far as it goes without waiting, and then, for what this rank has
  /// elsewhere, the same there. False where there is nothing here.
  bool go_on() {
    if (progress_[0].function == nullptr && progress_[1].function == nullptr && progress_of_rank_.idle()) return false;
    return go_on_now();
  }

  /// Whether anything is under way, or was at the last call: other threads of this rank may then be at work on it, and
  /// whoever touches it holds it.
  bool active() const noexcept { return listed_.load(memory_order_acquire); }
  class holding {
   public:
    explicit holding(thread_activity& activity) : activity_(activity) { activity_.lock_.lock(); }
    holding(const holding&) = delete;
    holding& operator=(const holding&) = delete;
    ~holding() {
      if (activity_.lock_.is_last()) activity_.show();
      activity_.lock_.unlock();
    }

   private:
    thread_activity& activity_;
  };

 protected:
  explicit thread_activity(thread_progress& of_rank) noexcept : progress_of_rank_(of_rank) {}
  ~thread_activity() {
    if (listed_.load(memory_order_relaxed)) progress_of_rank_.remove(*this);
  }

 private:
  [[gnu::noinline]] bool go_on_now() {
    const bool any = go_on_here();
    progress_of_rank_.go_on(this);
    return any;
  }
  bool go_on_here() {
    bool any = false;
    for (const progress_entry& work : progress_)
      if (work.function != nullptr) {
        work.function(work.context);
        any = true;
      }
    return any;
  }
  void try_go_on() noexcept override {
    if (!lock_.try_lock()) return;
    try {
      go_on_here();
    } catch (...) {
      // The launch has failed, which ends the wait that has come here.
    }
    lock_.unlock();
  }
  // Adds this communicator to those of its rank with calls under way, or takes it from them.
  [[gnu::noinline]] void show() noexcept {
    bool any = false;
    for (const progress_entry& work : progress_) any = any || work.function != nullptr;
    if (any == listed_.load(memory_order_relaxed)) return;
    if (any) progress_of_rank_.add(*this);
    else progress_of_rank_.remove(*this);
    listed_.store(any, memory_order_release);
  }

  struct progress_entry {
    void (*function)(void*) = nullptr;
    void* context = nullptr;
  };
  progress_entry progress_[2];
  thread_progress& progress_of_rank_;
  thread_lock lock_;
  atomic<bool> listed_{false};
};

}  // namespace shardkit::detail
