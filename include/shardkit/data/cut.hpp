// How a split divides its items: a layout, or a partition that the caller has made.
#pragma once

#include <shardkit/core/partition.hpp>
#include <shardkit/data/participant.hpp>

#include <cstddef>

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
    if (given_.parts() != who.size()) reject_parts(who, operation);
    if (given_.total() != total) reject_total(total, who, operation);
    return given_;
  }

 private:
  [[noreturn, gnu::cold, gnu::noinline]] void reject_parts(const participant& who, const char* operation) const {
    who.reject(operation, detail::sentence() << "the partition is over " << given_.parts()
                                             << " ranks and the communicator has " << who.size());
  }
  [[noreturn, gnu::cold, gnu::noinline]] void reject_total(std::size_t total, const participant& who,
                                                           const char* operation) const {
    who.reject(operation, detail::sentence() << "the partition is of " << given_.total() << " items and there are "
                                             << total << "; for rows of several elements cut the rows");
  }

  layout layout_ = layout::balanced;
  partition given_;
  bool is_given_ = false;
};

}  // namespace shardkit
