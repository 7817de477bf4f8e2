// Copies whose result no cache could hold: past the caches, or plain where the machine has no such stores.
#pragma once

#include <shardkit/core/detail/streaming_stores.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace shardkit::detail {

/// Copies `bytes` past the caches; the ranges may not overlap. The copy is visible to whoever sees a later release.
[[gnu::noinline]] inline void stream_copy(void* to, const void* from, std::size_t bytes) noexcept {
#if defined(SHARDKIT_STREAMING_STORES)
  constexpr std::size_t line = 64, piece = 16;
  auto* out = static_cast<char*>(to);
  const auto* in = static_cast<const char*>(from);
  const std::size_t head = (0 - reinterpret_cast<std::uintptr_t>(out)) % line;
  if (bytes >= head + line) {
    std::memcpy(out, in, head);
    out += head, in += head, bytes -= head;
    for (; bytes >= line; out += line, in += line, bytes -= line) {
      const auto* source = reinterpret_cast<const loose_lanes<long long, piece>*>(in);
      const lanes<long long, piece> a = source[0], b = source[1], c = source[2], d = source[3];
      store_past_caches(out, a);
      store_past_caches(out + piece, b);
      store_past_caches(out + 2 * piece, c);
      store_past_caches(out + 3 * piece, d);
    }
    end_streaming();
  }
  std::memcpy(out, in, bytes);
#else
  std::memcpy(to, from, bytes);
#endif
}

}  // namespace shardkit::detail
