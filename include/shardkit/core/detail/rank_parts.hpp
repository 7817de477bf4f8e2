// Where the ranks' parts of a buffer lie, as functions of the rank.
#pragma once

#include <shardkit/core/partition.hpp>

#include <cstddef>

namespace shardkit::detail {

/// Offset and count of what one rank gets or gives.
struct rank_part {
  std::size_t offset = 0, count = 0;
};
inline auto parts_of_each(std::size_t count) noexcept {
  return [count](int rank) { return rank_part{static_cast<std::size_t>(rank) * count, count}; };
}
/// `layout` has to outlive it.
inline auto parts_of(const partition& layout) noexcept {
  return [&layout](int rank) { return rank_part{layout.offset(rank), layout.count(rank)}; };
}

}  // namespace shardkit::detail
