// operator new that counts what is live and can be told to fail. Included in one source of a program.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <new>

namespace counted_memory {

inline std::atomic<long> live{0};  ///< allocations that have not been freed
/// Allocations of this thread until one fails; negative: none fails.
inline thread_local long until_failure = -1;
/// After the first failure all others of the thread fail, too.
inline thread_local bool failing_for_good = false;
inline thread_local bool has_failed = false;

inline void* take(std::size_t bytes, std::size_t alignment) {
  if (until_failure >= 0 && until_failure-- == 0) {
    has_failed = true;
    if (failing_for_good) until_failure = 0;
    throw std::bad_alloc();
  }
  void* const memory = alignment <= alignof(std::max_align_t)
                           ? std::malloc(bytes == 0 ? 1 : bytes)
                           : std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
  if (memory == nullptr) throw std::bad_alloc();
  live.fetch_add(1);
  return memory;
}
inline void give(void* memory) noexcept {
  if (memory == nullptr) return;
  live.fetch_sub(1);
  std::free(memory);
}

}  // namespace counted_memory

void* operator new(std::size_t bytes) { return counted_memory::take(bytes, 0); }
void* operator new(std::size_t bytes, std::align_val_t alignment) {
  return counted_memory::take(bytes, static_cast<std::size_t>(alignment));
}
void operator delete(void* memory) noexcept { counted_memory::give(memory); }
void operator delete(void* memory, std::size_t) noexcept { counted_memory::give(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { counted_memory::give(memory); }
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { counted_memory::give(memory); }
