// Which part of a stored tensor a rank keeps: all of it, or ranges along one dimension, given by partitions (each rank
// takes its own range) or by numbers.
#pragma once

#include <shardkit/checkpoint/detail/text.hpp>
#include <shardkit/core/error.hpp>
#include <shardkit/core/partition.hpp>

#include <cstddef>
#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

namespace shardkit {

/// Items [first, first + count).
struct index_range {
  std::size_t first;  ///< the first item
  std::size_t count;  ///< how many; may be 0
};

/// Made by whole, rows, columns and along. Several partitions stand for a fused weight: its segments follow one
/// another along the dimension, each rank takes its range of each segment and packs them in the same order.
///
///     rows(cut)                       W[n0:n1, :]           one contiguous read
///     columns(cut)                    W[:, k0:k1]           one run per row
///     rows({heads, kv, kv})           q, k, v of a fused QKV weight
///     rows(n0, n)                     given numbers
///     along(1, cut)                   any dimension: experts of [experts, out, in] cut by their rows
class slice {
 public:
  /// The whole tensor.
  slice() = default;

  /// A slice of one tensor, in numbers.
  struct resolved {
    std::size_t dimension = 0;        ///< the one that is cut
    std::vector<index_range> ranges;  ///< kept of it; empty for a single number, which has no dimension
  };
  /// How `name`, a tensor of this shape, is cut for `rank` of `size`: dimension and ranges, ascending or not.
  /// Throws usage_error where partitions are over another number of ranks, or do not cover the dimension.
  resolved resolve(const std::string& name, const std::vector<std::size_t>& shape, int rank, int size) const {
    resolved result;
    if (kind_ == kind::whole) {
      if (!shape.empty()) result.ranges.push_back({0, shape[0]});
      return result;
    }
    const std::size_t wanted = dimension_ == last ? (shape.empty() ? 0 : shape.size() - 1) : dimension_;
    const auto refuse = [&](const std::string& why) {
      throw usage_error("tensor " + detail::in_quotes(name) + " of shape " + detail::shape_text(shape) + ": " + why);
    };
    if (dimension_ == last && shape.size() < 2) refuse("it has no columns to cut; cut its rows");
    if (wanted >= shape.size()) refuse("it has no dimension " + std::to_string(wanted) + " to cut");
    const std::size_t extent = shape[wanted];
    result.dimension = wanted;
    result.ranges = ranges_;
    std::size_t covered = 0;
    for (const partition& segment : segments_) {
      if (segment.parts() != size)
        refuse("a partition over " + std::to_string(segment.parts()) + " ranks cuts it, the plan is for " +
               std::to_string(size));
      result.ranges.push_back({covered + segment.offset(rank), segment.count(rank)});
      covered += segment.total();
    }
    if (kind_ == kind::partitions && covered != extent)
      refuse("the partitions cover " + std::to_string(covered) + " of the " + std::to_string(extent) +
             " items of dimension " + std::to_string(wanted));
    for (const index_range& range : result.ranges)
      if (range.first > extent || range.count > extent - range.first)
        refuse(std::to_string(range.count) + " items from " + std::to_string(range.first) +
               " reach beyond the end of dimension " + std::to_string(wanted));
    return result;
  }

 private:
  enum class kind { whole, partitions, ranges };
  static constexpr std::size_t last = static_cast<std::size_t>(-1);

  slice(std::size_t dimension, std::vector<partition> segments)
      : kind_(kind::partitions), dimension_(dimension), segments_(std::move(segments)) {}
  slice(std::size_t dimension, std::vector<index_range> ranges)
      : kind_(kind::ranges), dimension_(dimension), ranges_(std::move(ranges)) {}

  friend slice along(std::size_t, std::initializer_list<partition>);
  friend slice along(std::size_t, std::vector<index_range>);
  friend slice columns(std::initializer_list<partition>);
  friend slice columns(std::vector<index_range>);

  kind kind_ = kind::whole;
  std::size_t dimension_ = 0;
  std::vector<partition> segments_;
  std::vector<index_range> ranges_;
};

/// The whole tensor.
inline slice whole() { return {}; }

/// Along any dimension, counted from 0.
inline slice along(std::size_t dimension, std::initializer_list<partition> segments) {
  return slice(dimension, std::vector<partition>(segments));
}
/// Given ranges of any dimension.
inline slice along(std::size_t dimension, std::vector<index_range> ranges) {
  return slice(dimension, std::move(ranges));
}
/// Each rank's range of any dimension.
inline slice along(std::size_t dimension, const partition& cut) { return along(dimension, {cut}); }
/// One given range of any dimension.
inline slice along(std::size_t dimension, std::size_t first, std::size_t count) {
  return along(dimension, std::vector<index_range>{{first, count}});
}

/// Along the first dimension.
inline slice rows(const partition& cut) { return along(0, cut); }
/// Fused segments along the first dimension.
inline slice rows(std::initializer_list<partition> segments) { return along(0, segments); }
/// A given range of the first dimension.
inline slice rows(std::size_t first, std::size_t count) { return along(0, first, count); }
/// Given ranges of the first dimension.
inline slice rows(std::vector<index_range> ranges) { return along(0, std::move(ranges)); }

/// Along the last dimension of a tensor that has two or more.
inline slice columns(std::initializer_list<partition> segments) {
  return slice(slice::last, std::vector<partition>(segments));
}
/// Given ranges of the last dimension.
inline slice columns(std::vector<index_range> ranges) { return slice(slice::last, std::move(ranges)); }
/// Each rank's range of the last dimension.
inline slice columns(const partition& cut) { return columns({cut}); }
/// A given range of the last dimension.
inline slice columns(std::size_t first, std::size_t count) { return columns(std::vector<index_range>{{first, count}}); }

}  // namespace shardkit
