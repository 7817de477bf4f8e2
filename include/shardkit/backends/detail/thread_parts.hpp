// Where the ranks' parts of a collective's buffer lie.
#pragma once

#include <shardkit/core/partition.hpp>

#include <cstddef>

namespace shardkit::detail {

struct equal_parts {
  std::size_t each;
  int ranks;
  std::size_t offset(int rank) const noexcept { return static_cast<std::size_t>(rank) * each; }
  std::size_t count(int) const noexcept { return each; }
  std::size_t total() const noexcept { return each * static_cast<std::size_t>(ranks); }
  std::size_t largest() const noexcept { return each; }
  /// What a rank contributes at most where each other rank gets a part.
  std::size_t largest_for_others() const noexcept { return each * static_cast<std::size_t>(ranks - 1); }
};

struct unequal_parts {
  const partition& layout;
  std::size_t offset(int rank) const noexcept { return layout.offset(rank); }
  std::size_t count(int rank) const noexcept { return layout.count(rank); }
  std::size_t total() const noexcept { return layout.total(); }
  std::size_t largest() const noexcept { return layout.padded_count(); }
  std::size_t largest_for_others() const noexcept { return layout.total(); }
};

}  // namespace shardkit::detail
