// Where the threads of one rank have been waiting for a while: what a peer that waits for that rank in vain wants to
// know, since two ranks that use two communicators in opposite order each see only that the other does not come.
#pragma once

#include <shardkit/backends/detail/thread_progress.hpp>
#include <shardkit/comm/describe.hpp>

#include <string>

namespace shardkit::detail {

class thread_waits {
 public:
  /// A wait in `call` for `rank` of the launch, for as long as this lives.
  class entry {
   public:
    entry(thread_waits& waits, const described_call& call, int rank) noexcept
        : waits_(waits), call_(call), rank_(rank) {
      const thread_lock::guard held(waits_.lock_);
      next_ = waits_.first_;
      waits_.first_ = this;
    }
    entry(const entry&) = delete;
    entry& operator=(const entry&) = delete;
    ~entry() {
      const thread_lock::guard held(waits_.lock_);
      entry** at = &waits_.first_;
      while (*at != this) at = &(*at)->next_;
      *at = next_;
    }

   private:
    friend class thread_waits;
    thread_waits& waits_;
    const described_call& call_;
    const int rank_;
    entry* next_ = nullptr;
  };

  /// "; it waits for rank 0 in barrier() at file.cpp:3", and so on; empty where it does not wait.
  [[gnu::cold, gnu::noinline]] std::string text() {
    const thread_lock::guard held(lock_);
    sentence all;
    for (const entry* each = first_; each != nullptr; each = each->next_)
      all << "; it waits for rank " << each->rank_ << " in " << each->call_.text() << describe_site(each->call_.site());
    return all;
  }

 private:
  thread_lock lock_;
  entry* first_ = nullptr;
};

}  // namespace shardkit::detail
