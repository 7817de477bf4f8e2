// This rank's share of the numbers 0..n-1, for data that is not a contiguous list in memory.
#pragma once

#include <shardkit/data/cut.hpp>

#include <cstddef>
#include <iterator>

namespace shardkit {

/// The numbers first, first + 1, ... last - 1.
struct consecutive_indices {
  /// Its numbers are made as they are asked for.
  class iterator {
   public:
    using iterator_category = std::forward_iterator_tag;
    using value_type = std::size_t;
    using difference_type = std::ptrdiff_t;
    using pointer = const std::size_t*;
    using reference = std::size_t;

    constexpr iterator() noexcept = default;
    constexpr explicit iterator(std::size_t index) noexcept : index_(index) {}
    constexpr std::size_t operator*() const noexcept { return index_; }
    constexpr iterator& operator++() noexcept {
      ++index_;
      return *this;
    }
    constexpr iterator operator++(int) noexcept { return iterator(index_++); }
    friend constexpr bool operator==(iterator a, iterator b) noexcept { return a.index_ == b.index_; }
    friend constexpr bool operator!=(iterator a, iterator b) noexcept { return a.index_ != b.index_; }

   private:
    std::size_t index_ = 0;
  };

  std::size_t first = 0;  ///< the smallest of them
  std::size_t last = 0;   ///< one beyond the largest; first: there are none

  constexpr std::size_t size() const noexcept { return last - first; }
  constexpr bool empty() const noexcept { return first == last; }
  constexpr iterator begin() const noexcept { return iterator(first); }
  constexpr iterator end() const noexcept { return iterator(last); }
};

/// The indices of the items that split(comm, list_of_n) would give this rank:
///
///     for (std::size_t i : split_indices(comm, files.size())) read(files[i]);
///
/// A partition over other counts fails the communicator and throws usage_error.
constexpr consecutive_indices split_indices(participant who, std::size_t n, const cut& how = {}) {
  const partition part = how.over(n, who, "split_indices");
  const std::size_t first = part.offset(who.rank());
  return {first, first + part.count(who.rank())};
}

}  // namespace shardkit
