#include "serial_model.hpp"

#include <shardkit/backends/self.hpp>
#include <shardkit/data/split_segments.hpp>

#include <doctest/doctest.h>

#include <numeric>
#include <vector>

using shardkit::layout;
using shardkit::matrix_view;
using shardkit::participant;
using shardkit::partition;
using shardkit::segment_range;
using shardkit::segmented_partition;

namespace {

// Tags every item of the fused tensor with its index and lets each rank pick its part of each block by hand.
std::vector<std::size_t> shard_of(const std::vector<std::size_t>& lengths, int size, int rank, layout how) {
  std::vector<std::size_t> shard;
  std::size_t block_start = 0;
  for (std::size_t length : lengths) {
    const auto shares = serial_model::shares(length, size, how);
    for (std::size_t index : shares[static_cast<std::size_t>(rank)]) shard.push_back(block_start + index);
    block_start += length;
  }
  return shard;
}

segmented_partition segments_of(const std::vector<std::size_t>& lengths, int size, layout how) {
  std::vector<partition> parts;
  for (std::size_t length : lengths)
    parts.push_back(how == layout::block ? partition::block(length, size) : partition::balanced(length, size));
  return segmented_partition(parts);
}

const std::vector<std::vector<std::size_t>> fused_lengths{{0},       {5},        {4, 4},        {7, 7},
                                                          {9, 3, 3}, {1, 0, 13}, {2, 11, 5, 1}, {8, 2, 2}};

}  // namespace

TEST_CASE("Segmented ranges pick each rank's part of every block, packed in order") {
  for (const layout how : {layout::balanced, layout::block})
    for (const auto& lengths : fused_lengths)
      for (int size = 1; size <= 7; ++size) {
        const segmented_partition segments = segments_of(lengths, size, how);
        CHECK(segments.total() == std::accumulate(lengths.begin(), lengths.end(), std::size_t{0}));
        CHECK(segments.parts() == size);
        std::size_t shards_start = 0;
        for (int rank = 0; rank < size; ++rank) {
          const auto expected = shard_of(lengths, size, rank, how);
          std::vector<std::size_t> picked(segments.count(rank), 12345);
          const auto ranges = segments.ranges(rank);
          REQUIRE(ranges.size() == lengths.size());
          for (std::size_t i = 0; i < ranges.size(); ++i) {
            CHECK(ranges[i] == segments.range(rank, i));
            for (std::size_t item = 0; item < ranges[i].count; ++item)
              picked.at(ranges[i].shard_offset + item) = ranges[i].source_offset + item;
          }
          CHECK(picked == expected);
          CHECK(segments.shards().offset(rank) == shards_start);
          CHECK(segments.shards().count(rank) == expected.size());
          shards_start += expected.size();
        }
      }
}

TEST_CASE("Fused rows and columns are copied to shards and merged back to the same bits") {
  const std::size_t across = 3;
  for (const layout how : {layout::balanced, layout::block})
    for (const auto& lengths : fused_lengths)
      for (int size = 1; size <= 7; ++size) {
        const segmented_partition segments = segments_of(lengths, size, how);
        const std::size_t total = segments.total();
        std::vector<float> fused(total * across);
        for (std::size_t i = 0; i < fused.size(); ++i) fused[i] = serial_model::awkward_float(i);
        std::vector<float> by_rows(fused.size(), 1.0f), by_columns(fused.size(), 1.0f);
        const matrix_view<const float> tall(fused.data(), total, across), wide(fused.data(), across, total);

        for (int rank = 0; rank < size; ++rank) {
          const participant who(rank, size);
          const auto expected = shard_of(lengths, size, rank, how);
          const std::size_t count = expected.size();
          // A gap after each row of the shard must stay as it is.
          std::vector<float> shard(count * (across + 1), 42.0f);
          const matrix_view<float> rows(shard.data(), count, across, across + 1);
          split_segments(who, tall, rows, segments);
          for (std::size_t i = 0; i < count; ++i) {
            CHECK(serial_model::same_bits(rows.row(i), tall.row(expected[i])));
            CHECK(shard[i * (across + 1) + across] == 42.0f);
          }
          merge_segments(who, rows, matrix_view(by_rows.data(), total, across), segments);

          std::vector<float> columns(across * count);
          const matrix_view<float> column_shard(columns.data(), across, count);
          split_segment_columns(who, wide, column_shard, segments);
          for (std::size_t row = 0; row < across; ++row)
            for (std::size_t i = 0; i < count; ++i)
              CHECK(
                  serial_model::same_bits(column_shard.row(row).subview(i, 1), wide.row(row).subview(expected[i], 1)));
          merge_segment_columns(who, column_shard, matrix_view(by_columns.data(), across, total), segments);
        }
        CHECK(serial_model::same_bits(by_rows, fused));
        CHECK(serial_model::same_bits(by_columns, fused));
      }
}

TEST_CASE("A fused bias is a list of single elements") {
  const std::vector<int> bias{0, 1, 2, 3, 10, 11};
  std::vector<int> shard(3), merged(6, -1);
  const segmented_partition segments({partition::balanced(4, 2), partition::balanced(2, 2)});
  split_segments(participant(1, 2), bias, shard, segments);
  CHECK(shard == std::vector<int>{2, 3, 11});
  merge_segments(participant(1, 2), shard, merged, segments);
  CHECK(merged == std::vector<int>{-1, -1, 2, 3, -1, 11});
}

TEST_CASE("Query, key and value rows follow the heads, key and value replicated where ranks share them") {
  // 9 heads and 3 key/value heads of 2 rows each over 6 ranks: heads 2,1,2,1,2,1; key/value heads 0,0,1,1,2,2.
  const auto segments = segmented_partition::query_key_value(shardkit::grouped(9, 3, 6), 2);
  CHECK(segments.total() == 18 + 6 + 6);
  const std::vector<std::vector<segment_range>> expected{
      {{0, 0, 4}, {18, 4, 2}, {24, 6, 2}},  {{4, 0, 2}, {18, 2, 2}, {24, 4, 2}},  {{6, 0, 4}, {20, 4, 2}, {26, 6, 2}},
      {{10, 0, 2}, {20, 2, 2}, {26, 4, 2}}, {{12, 0, 4}, {22, 4, 2}, {28, 6, 2}}, {{16, 0, 2}, {22, 2, 2}, {28, 4, 2}}};
  for (int rank = 0; rank < 6; ++rank) CHECK(segments.ranges(rank) == expected[static_cast<std::size_t>(rank)]);
}

TEST_CASE("Scaled segments are the same cut in smaller items") {
  const auto rows = segmented_partition::repeated(2, partition::balanced(5, 3));
  const auto elements = rows.scaled(4);
  for (int rank = 0; rank < 3; ++rank)
    for (std::size_t i = 0; i < 2; ++i) {
      const segment_range row = rows.range(rank, i), element = elements.range(rank, i);
      CHECK(element == segment_range{row.source_offset * 4, row.shard_offset * 4, row.count * 4});
    }
  CHECK(rows == segmented_partition({partition::balanced(5, 3), partition::balanced(5, 3)}));
  CHECK(rows != elements);
}

TEST_CASE("Segments over different ranks and tensors of other shapes are refused") {
  CHECK_THROWS_AS(segmented_partition(std::vector<partition>{}), shardkit::usage_error);
  CHECK_THROWS_WITH_AS(segmented_partition({partition::balanced(4, 2), partition::balanced(4, 3)}),
                       doctest::Contains("segment 1 is cut over 3 ranks and the first over 2"), shardkit::usage_error);
  const segmented_partition segments({partition::balanced(4, 2), partition::balanced(2, 2)});
  std::vector<int> fused(6), shard(3), other(4);
  CHECK_THROWS_AS(split_segments(participant(0, 3), fused, shard, segments), shardkit::usage_error);
  CHECK_THROWS_AS(split_segments(participant(0, 2), other, shard, segments), shardkit::usage_error);
  CHECK_THROWS_AS(split_segments(participant(0, 2), fused, other, segments), shardkit::usage_error);
  CHECK_THROWS_AS(merge_segments(participant(0, 2), other, fused, segments), shardkit::usage_error);
  CHECK_THROWS_AS(
      split_segments(participant(0, 2), matrix_view(fused.data(), 6, 1), matrix_view(shard.data(), 3, 0), segments),
      shardkit::usage_error);
  CHECK_THROWS_AS(split_segment_columns(participant(0, 2), matrix_view(fused.data(), 1, 6),
                                        matrix_view(other.data(), 1, 4), segments),
                  shardkit::usage_error);

  shardkit::self_communicator comm{shardkit::self_backend()};
  CHECK_THROWS_AS(split_segments(comm, fused, shard, segments), shardkit::usage_error);
  CHECK_THROWS_AS(comm.barrier(), shardkit::peer_failed);
}
