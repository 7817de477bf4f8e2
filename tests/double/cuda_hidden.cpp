// The lock of the double and its signs to ThreadSanitizer.
#include <double/hidden.hpp>

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <climits>
#include <ctime>

namespace shardkit_double {
namespace {

/// An address of its own for each thread.
const void* thread_mark() noexcept {
  static thread_local char mark;
  return &mark;
}

constexpr unsigned switch_without_order = 1;

}  // namespace

bool watched() noexcept { return __tsan_create_fiber != nullptr && AnnotateIgnoreReadsBegin != nullptr; }

void unseen::begin() noexcept {
  if (!watched()) return;
  AnnotateIgnoreReadsBegin(__FILE__, __LINE__);  // writes too
  AnnotateIgnoreSyncBegin(__FILE__, __LINE__);
}

void unseen::end() noexcept {
  if (!watched()) return;
  AnnotateIgnoreSyncEnd(__FILE__, __LINE__);
  AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
}

acting_as::acting_as(void* fiber) noexcept {
  if (!watched()) return;
  before_ = __tsan_get_current_fiber();
  __tsan_switch_to_fiber(fiber, switch_without_order);
}

acting_as::~acting_as() {
  if (before_ != nullptr) __tsan_switch_to_fiber(before_, switch_without_order);
}

void sleep_while(std::atomic<std::uint32_t>& word, std::uint32_t value, std::int64_t nanoseconds) noexcept {
  timespec limit{static_cast<time_t>(nanoseconds / 1'000'000'000), static_cast<long>(nanoseconds % 1'000'000'000)};
  syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, value, nanoseconds < 0 ? nullptr : &limit, nullptr, 0);
}

void wake_sleepers(std::atomic<std::uint32_t>& word) noexcept {
  syscall(SYS_futex, &word, FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0);
}

bool hidden_lock::held() const noexcept { return owner_.load(std::memory_order_relaxed) == thread_mark(); }

void hidden_lock::lock() noexcept {
  if (!held()) {
    std::uint32_t expected = 0;
    if (!word_.compare_exchange_strong(expected, 1))
      while (word_.exchange(2) != 0) sleep_while(word_, 2, -1);
    owner_.store(thread_mark(), std::memory_order_relaxed);
  }
  ++depth_;
}

void hidden_lock::unlock() noexcept {
  if (--depth_ != 0) return;
  owner_.store(nullptr, std::memory_order_relaxed);
  if (word_.exchange(0) == 2) wake_sleepers(word_);
}

unsigned hidden_lock::release_all() noexcept {
  const unsigned depth = depth_;
  depth_ = 1;
  unlock();
  return depth;
}

void hidden_lock::regain(unsigned depth) noexcept {
  lock();
  depth_ = depth;
}

}  // namespace shardkit_double
