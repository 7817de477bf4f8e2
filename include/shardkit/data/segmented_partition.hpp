// Fused blocks: one tensor that holds several that are cut each for itself (query, key and value weights; gate and
// up). A plain contiguous cut of the fused tensor would be wrong: it would give whole blocks to some ranks. The value
// that layers and loaders take; split_segments.hpp copies by it.
#pragma once

#include <shardkit/core/partition.hpp>

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

namespace shardkit {

/// Items [source_offset, + count) of the fused tensor are items [shard_offset, + count) of a rank's shard.
struct segment_range {
  std::size_t source_offset = 0;  ///< first item in the fused tensor
  std::size_t shard_offset = 0;   ///< first item in the rank's shard
  std::size_t count = 0;          ///< items of the range

  friend constexpr bool operator==(const segment_range& a, const segment_range& b) noexcept {
    return a.source_offset == b.source_offset && a.shard_offset == b.shard_offset && a.count == b.count;
  }
  friend constexpr bool operator!=(const segment_range& a, const segment_range& b) noexcept { return !(a == b); }
};

/// One partition for each block of a fused tensor, in the order in which the blocks lie there. A rank's shard holds
/// its range of the first block, then that of the second, and so on, without gaps.
class segmented_partition {
 public:
  segmented_partition() = default;
  /// Throws usage_error where the partitions are over different numbers of ranks, or there is none.
  explicit segmented_partition(std::vector<partition> segments) : segments_(std::move(segments)) {
    if (segments_.empty()) throw usage_error("segmented_partition: give at least one segment");
    for (std::size_t i = 1; i < segments_.size(); ++i)
      if (segments_[i].parts() != parts())
        throw usage_error("segmented_partition: segment " + std::to_string(i) + " is cut over " +
                          std::to_string(segments_[i].parts()) + " ranks and the first over " +
                          std::to_string(parts()));
  }

  /// `copies` blocks cut in the same way: repeated(2, cut) for fused gate and up.
  static segmented_partition repeated(std::size_t copies, const partition& each) {
    return segmented_partition(std::vector<partition>(copies, each));
  }
  /// Query, key and value rows of `head_size` each, from the heads that `grouped` deals out.
  static segmented_partition query_key_value(const grouped_heads& cut, std::size_t head_size) {
    const partition key = cut.kv_heads.scaled(head_size);
    return segmented_partition({cut.heads.scaled(head_size), key, key});
  }

  /// Number of ranks.
  int parts() const noexcept { return segments_.empty() ? 1 : segments_.front().parts(); }
  /// The partitions, in the order of the blocks.
  const std::vector<partition>& segments() const noexcept { return segments_; }

  /// Items of the fused tensor.
  std::size_t total() const noexcept {
    std::size_t items = 0;
    for (const partition& segment : segments_) items += segment.total();
    return items;
  }
  /// Items of the rank's shard.
  std::size_t count(int rank) const noexcept {
    std::size_t items = 0;
    for (const partition& segment : segments_) items += segment.count(rank);
    return items;
  }
  /// What the rank holds of one segment; of no items where it holds none.
  segment_range range(int rank, std::size_t segment) const noexcept {
    segment_range result{segments_[segment].offset(rank), 0, segments_[segment].count(rank)};
    for (std::size_t before = 0; before < segment; ++before) {
      result.source_offset += segments_[before].total();
      result.shard_offset += segments_[before].count(rank);
    }
    return result;
  }
  /// One range for each segment, in order.
  std::vector<segment_range> ranges(int rank) const {
    std::vector<segment_range> all;
    all.reserve(segments_.size());
    for (std::size_t segment = 0; segment < segments_.size(); ++segment) all.push_back(range(rank, segment));
    return all;
  }

  /// Where the shards lie when they are gathered one after the other: rank r's has count(r) items.
  partition shards() const {
    std::vector<std::size_t> counts;
    for (int rank = 0; rank < parts(); ++rank) counts.push_back(count(rank));
    return partition::from_counts(counts);
  }

  /// The same cut of items that consist of n smaller ones (rows to elements).
  segmented_partition scaled(std::size_t n) const {
    segmented_partition result = *this;
    for (partition& segment : result.segments_) segment = segment.scaled(n);
    return result;
  }

  friend bool operator==(const segmented_partition& a, const segmented_partition& b) noexcept {
    return a.segments_ == b.segments_;
  }
  friend bool operator!=(const segmented_partition& a, const segmented_partition& b) noexcept { return !(a == b); }

 private:
  std::vector<partition> segments_;
};

}  // namespace shardkit
