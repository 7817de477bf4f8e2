// Up to which sizes thread ranks move data in which way. Measured on two cores that share a last-level cache; results
// do not depend on any of it.
#pragma once

#include <shardkit/core/detail/stream_copy.hpp>
#include <shardkit/core/space.hpp>

#include <cstddef>
#include <cstring>

namespace shardkit::detail {

struct thread_limits {
  static constexpr std::size_t box = 256 << 10;        ///< both ways: through boxes, whose size this is
  static constexpr std::size_t one_way = 16 << 10;     ///< to or from a root: through boxes
  static constexpr std::size_t broadcast = 1 << 10;    ///< through the root's box, else everybody copies a share
  static constexpr std::size_t one_step = 8 << 10;     ///< reductions: every rank reads everything
  static constexpr std::size_t staged = 512 << 10;     ///< all_reduce: combined where the output is, ...
  static constexpr std::size_t staged_far = 16 << 20;  ///< ... and up to here between far cores
  static constexpr std::size_t stage = 2 << 20;        ///< both ways, between far cores: through other memory
  static constexpr std::size_t piece = 64 << 10;       ///< copied to all peers while it is in the cache
};

/// For contributions, which often are a single number: without a call.
inline void copy_small(void* to, const void* from, std::size_t bytes) noexcept {
  if (bytes == 8) std::memcpy(to, from, 8);
  else if (bytes == 4) std::memcpy(to, from, 4);
  else host_space::copy(to, from, bytes);
}

inline void copy_bytes(void* to, const void* from, std::size_t bytes, bool streams) noexcept {
  if (streams && bytes != 0 && to != from) stream_copy(to, from, bytes);
  else host_space::copy(to, from, bytes);
}

}  // namespace shardkit::detail
