// operator new that counts. Included in one source of a program of its own.
#pragma once

#include <malloc.h>

#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <new>

namespace counted_heap {

// Of all threads.
inline std::atomic<long> allocations{0}, releases{0};
inline std::atomic<long long> live_bytes{0};
/// Allocations of the thread that asks.
inline thread_local long own_allocations = 0;

inline void* allocated(void* memory) {
  if (memory == nullptr) throw std::bad_alloc();
  live_bytes += static_cast<long long>(malloc_usable_size(memory));
  ++allocations;
  ++own_allocations;
  return memory;
}
inline void released(void* memory) {
  if (memory != nullptr) {
    live_bytes -= static_cast<long long>(malloc_usable_size(memory));
    ++releases;
  }
  std::free(memory);
}

}  // namespace counted_heap

// Not inlined, lest the compiler takes the pairs apart and warns about free.
[[gnu::noinline]] void* operator new(std::size_t bytes) {
  return counted_heap::allocated(std::malloc(bytes == 0 ? 1 : bytes));
}
[[gnu::noinline]] void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept {  // as std::stable_sort does
  return counted_heap::allocated(std::malloc(bytes == 0 ? 1 : bytes));
}
[[gnu::noinline]] void* operator new(std::size_t bytes, std::align_val_t alignment) {
  const std::size_t unit = static_cast<std::size_t>(alignment);
  return counted_heap::allocated(std::aligned_alloc(unit, (bytes + unit - 1) / unit * unit));
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { counted_heap::released(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { counted_heap::released(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::align_val_t) noexcept { counted_heap::released(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t, std::align_val_t) noexcept {
  counted_heap::released(memory);
}
