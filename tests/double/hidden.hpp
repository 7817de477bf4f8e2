// What keeps the double out of ThreadSanitizer's sight. A mutex would order the threads of the program that meet in
// it, and so hide their races; hence a lock of atomic operations in code that is not instrumented. What a device
// really orders is said explicitly: each stream is a fiber of ThreadSanitizer's, which acquires when work is queued
// and releases when it is done. The functions are weak: without ThreadSanitizer they are null and nothing is called.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

extern "C" {
[[gnu::weak]] void __tsan_acquire(void* token);
[[gnu::weak]] void __tsan_release(void* token);
[[gnu::weak]] void* __tsan_get_current_fiber();
[[gnu::weak]] void* __tsan_create_fiber(unsigned flags);
[[gnu::weak]] void __tsan_destroy_fiber(void* fiber);
[[gnu::weak]] void __tsan_switch_to_fiber(void* fiber, unsigned flags);
[[gnu::weak]] void __tsan_read_range(void* address, unsigned long bytes);
[[gnu::weak]] void __tsan_write_range(void* address, unsigned long bytes);
[[gnu::weak]] void __tsan_func_entry(void* caller);
[[gnu::weak]] void __tsan_func_exit();
[[gnu::weak]] void AnnotateIgnoreReadsBegin(const char* file, int line);
[[gnu::weak]] void AnnotateIgnoreReadsEnd(const char* file, int line);
[[gnu::weak]] void AnnotateIgnoreSyncBegin(const char* file, int line);
[[gnu::weak]] void AnnotateIgnoreSyncEnd(const char* file, int line);
}

namespace shardkit_double {

/// True where ThreadSanitizer watches.
bool watched() noexcept;

/// While alive, nothing that the calling thread does is seen: neither accesses nor synchronisation.
class unseen {
 public:
  unseen() noexcept { begin(); }
  ~unseen() { end(); }
  unseen(const unseen&) = delete;
  unseen& operator=(const unseen&) = delete;

  static void begin() noexcept;
  static void end() noexcept;
};

/// While alive, the calling thread acts as the given fiber, which is seen.
class acting_as {
 public:
  explicit acting_as(void* fiber) noexcept;
  ~acting_as();
  acting_as(const acting_as&) = delete;
  acting_as& operator=(const acting_as&) = delete;

 private:
  void* before_ = nullptr;
};

/// A lock that a thread may take again, and that tells ThreadSanitizer nothing.
class hidden_lock {
 public:
  void lock() noexcept;
  void unlock() noexcept;
  /// Gives the lock back however often it was taken; regain() takes it as often.
  unsigned release_all() noexcept;
  void regain(unsigned depth) noexcept;
  bool held() const noexcept;

 private:
  std::atomic<std::uint32_t> word_{0};  ///< 0 free, 1 taken, 2 taken and somebody sleeps
  std::atomic<const void*> owner_{nullptr};
  unsigned depth_ = 0;
};

/// Sleeps until `word` is no longer `value`, somebody wakes it, or the time is over.
void sleep_while(std::atomic<std::uint32_t>& word, std::uint32_t value, std::int64_t nanoseconds) noexcept;
void wake_sleepers(std::atomic<std::uint32_t>& word) noexcept;

}  // namespace shardkit_double
