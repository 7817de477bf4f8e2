// Stores past the caches, for results that no cache could hold: they save reading each line that is written, and leave
// in the caches what is there.
#pragma once

#include <shardkit/core/detail/vector_unit.hpp>

#include <cstddef>
#include <initializer_list>

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define SHARDKIT_PLAIN_STORES  // which the sanitizers see
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer) || __has_feature(address_sanitizer) || __has_feature(memory_sanitizer)
#define SHARDKIT_PLAIN_STORES
#endif
#endif
#if defined(__x86_64__) && !defined(SHARDKIT_PLAIN_STORES)
#define SHARDKIT_STREAMING_STORES
#include <cpuid.h>
#endif

namespace shardkit::detail {

#if defined(SHARDKIT_STREAMING_STORES)
inline constexpr bool has_streaming_stores = true;

/// The largest cache of one core, which it may share with some others, 32 MiB where the processor does not tell: leaf 4
/// of cpuid (Intel SDM, volume 2) or 8000001D (AMD APM, volume 3). The C library's figure may be that of all the caches
/// of a socket together.
inline std::size_t last_level_cache_bytes() noexcept {
  static const std::size_t known = [] {
    std::size_t largest = 0;
    for (const unsigned leaf : {4u, 0x8000001du}) {
      unsigned kind, shape, sets, flags;
      for (unsigned index = 0; __get_cpuid_count(leaf, index, &kind, &shape, &sets, &flags) && (kind & 31) != 0;
           ++index) {
        const std::size_t lines = ((shape >> 22) + 1) * ((shape >> 12 & 1023) + 1) * (std::size_t{sets} + 1);
        const std::size_t bytes = lines * ((shape & 4095) + 1);
        if (bytes > largest) largest = bytes;
      }
    }
    return largest != 0 ? largest : std::size_t{32} << 20;
  }();
  return known;
}
#else
inline constexpr bool has_streaming_stores = false;
#endif

/// Whether a call that touches so much, on all ranks together, should write past the caches.
inline bool goes_past_caches([[maybe_unused]] std::size_t touched) noexcept {
#if defined(SHARDKIT_STREAMING_STORES)
  return touched > last_level_cache_bytes();
#else
  return false;
#endif
}

#if defined(SHARDKIT_STREAMING_STORES)
#if defined(__clang__)
#define SHARDKIT_STREAM(builtin, to, value) __builtin_nontemporal_store(value, to)
#else
#define SHARDKIT_STREAM(builtin, to, value) builtin(to, value)
#endif
// `to` is aligned to the size of the value.
[[gnu::always_inline]] inline void store_past_caches(void* to, const lanes<long long, 16>& value) noexcept {
  SHARDKIT_STREAM(__builtin_ia32_movntdq, (static_cast<lanes<long long, 16>*>(to)), value);
}
[[gnu::always_inline]] __attribute__((target("avx"))) inline void store_past_caches(
    void* to, const lanes<long long, 32>& value) noexcept {
  SHARDKIT_STREAM(__builtin_ia32_movntdq256, (static_cast<lanes<long long, 32>*>(to)), value);
}
[[gnu::always_inline]] SHARDKIT_AVX512 inline void store_past_caches(void* to,
                                                                     const lanes<long long, 64>& value) noexcept {
  SHARDKIT_STREAM(__builtin_ia32_movntdq512, (static_cast<lanes<long long, 64>*>(to)), value);
}
#undef SHARDKIT_STREAM
#endif

/// Follows such stores, which are not ordered by a release.
inline void end_streaming() noexcept {
#if defined(SHARDKIT_STREAMING_STORES)
  __builtin_ia32_sfence();
#endif
}

}  // namespace shardkit::detail
