// How a split divides its items: a layout, or a partition that the caller has made.
#pragma once

#include <shardkit/core/partition.hpp>
#include <shardkit/data/participant.hpp>

#include <cstddef>
#include <string>

namespace shardkit {

/// The last argument of every split; a layout or a partition converts to it. Balanced where it is left out.
class cut {
 public:
  constexpr cut(layout how = layout::balanced) noexcept : layout_(how) {}
  constexpr cut(const partition& given) noexcept : given_(given), is_given_(true) {}

  /// The ranges of `total` items over the ranks of `who`. A given partition must be over just so many items and
  /// ranks; otherwise the communicator fails and usage_error is thrown.
  constexpr partition over(std::size_t total, const participant& who, const char* operation) const {
    if (!is_given_)
      return layout_ == layout::block ? partition::block(total, who.size()) : partition::balanced(total, who.size());
    if (given_.parts() != who.size())
      who.reject(operation, "the partition is over " + std::to_string(given_.parts()) +
                                " ranks and the communicator has " + std::to_string(who.size()));
    if (given_.total() != total)
      who.reject(operation, "the partition is of " + std::to_string(given_.total()) + " items and there are " +
                                std::to_string(total) + "; for rows of several elements cut the rows");
    return given_;
  }

 private:
  layout layout_ = layout::balanced;
  partition given_;
  bool is_given_ = false;
};

}  // namespace shardkit
