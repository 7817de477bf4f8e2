// Copies whose result no cache could hold: they store past the caches, which saves reading each line that is written.
// Where the machine has no such stores, plain copies.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include <unistd.h>

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define SHARDKIT_PLAIN_STORES  // which the sanitizers see
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer) || __has_feature(address_sanitizer) || __has_feature(memory_sanitizer)
#define SHARDKIT_PLAIN_STORES
#endif
#endif
#if defined(__SSE2__) && !defined(SHARDKIT_PLAIN_STORES)
#define SHARDKIT_STREAMING_STORES
#endif

namespace shardkit::detail {

/// The cache that the cores share, 32 MiB where it is unknown.
inline std::size_t last_level_cache_bytes() noexcept {
#if defined(_SC_LEVEL3_CACHE_SIZE)
  static const long known = sysconf(_SC_LEVEL3_CACHE_SIZE);
  if (known > 0) return static_cast<std::size_t>(known);
#endif
  return std::size_t{32} << 20;
}

/// Copies `bytes` past the caches; the ranges may not overlap. The copy is visible to whoever sees a later release.
inline void stream_copy(void* to, const void* from, std::size_t bytes) noexcept {
#if defined(SHARDKIT_STREAMING_STORES)
  constexpr std::size_t line = 64;
  typedef long long piece __attribute__((vector_size(16), may_alias));
  typedef long long loose_piece __attribute__((vector_size(16), aligned(1), may_alias));
  auto* out = static_cast<char*>(to);
  const auto* in = static_cast<const char*>(from);
  const std::size_t head = (0 - reinterpret_cast<std::uintptr_t>(out)) % line;
  if (bytes >= head + line) {
    std::memcpy(out, in, head);
    out += head, in += head, bytes -= head;
    for (; bytes >= line; out += line, in += line, bytes -= line) {
      const auto* source = reinterpret_cast<const loose_piece*>(in);
      auto* target = reinterpret_cast<piece*>(out);
      const piece a = source[0], b = source[1], c = source[2], d = source[3];
#if defined(__clang__)
      __builtin_nontemporal_store(a, target);
      __builtin_nontemporal_store(b, target + 1);
      __builtin_nontemporal_store(c, target + 2);
      __builtin_nontemporal_store(d, target + 3);
#else
      __builtin_ia32_movntdq(target, a);
      __builtin_ia32_movntdq(target + 1, b);
      __builtin_ia32_movntdq(target + 2, c);
      __builtin_ia32_movntdq(target + 3, d);
#endif
    }
    __builtin_ia32_sfence();  // such stores are not ordered by a release
  }
  std::memcpy(out, in, bytes);
#else
  std::memcpy(to, from, bytes);
#endif
}

}  // namespace shardkit::detail
