// The forms that promise to allocate nothing, counted. A program of its own, because it replaces operator new.
#include <shardkit/data/gather_trim.hpp>
#include <shardkit/data/pad_and_split.hpp>
#include <shardkit/data/split.hpp>
#include <shardkit/data/split_indices.hpp>
#include <shardkit/data/split_segments.hpp>
#include <shardkit/launch/run_ranks.hpp>
#include <support/counted_heap.hpp>

#include <doctest/doctest.h>

#include <utility>
#include <vector>

using shardkit::layout;
using shardkit::matrix_view;
using shardkit::partition;

TEST_CASE("Splits, copies and gathers into memory of the caller allocate nothing") {
  for (int size = 1; size <= 4; ++size)
    shardkit::run_ranks(size, [](shardkit::thread_communicator& comm) {
      const std::size_t n = 1023, columns = 3;
      const std::vector<double> equal_weights(static_cast<std::size_t>(comm.size()), 1.0);
      for (const partition& cut : {partition::balanced(n, comm.size()), partition::weighted(n, equal_weights, 7)}) {
        const std::size_t count = cut.count(comm.rank());
        std::vector<float> all(n * columns, 1.0f), mine(cut.padded_count() * columns);
        std::vector<float> workspace(gather_columns_workspace(columns, cut));
        const matrix_view<float> tall(all.data(), n, columns), wide(all.data(), columns, n);
        const matrix_view<float> my_rows(mine.data(), cut.padded_count(), columns),
            my_columns(mine.data(), columns, count);
        const auto segments = shardkit::segmented_partition::repeated(2, cut);
        std::vector<float> fused(segments.total()), shard(segments.count(comm.rank()));

        std::size_t items = 0;
        const auto everything = [&] {
          const auto [some, rows] = split(comm, std::as_const(fused), matrix_view(fused.data(), fused.size(), 1));
          items += some.size() + rows.rows();
          items += split_rows(comm, tall, cut).rows() + split_columns(comm, wide, cut).columns();
          for (std::size_t index : split_indices(comm, n, cut)) items += index;
          pad_and_split_into(comm, tall, my_rows, shardkit::repeat_last{}, cut);
          pad_and_split_into(comm, tall, my_rows, shardkit::fill_with{0.0f}, cut);
          gather_trim_into(comm, my_rows, tall, cut);
          gather_rows(comm, my_rows.row_range(0, count), tall, cut);
          gather_columns(comm, my_columns, wide, cut, workspace);
          split_segments(comm, fused, shard, segments);
          merge_segments(comm, shard, fused, segments);
        };
        everything();  // a communicator may allocate in its first calls
        const long before = counted_heap::own_allocations;
        for (int round = 0; round < 3; ++round) everything();
        CHECK(counted_heap::own_allocations == before);
        CHECK(items > 0);
      }
    });
}

TEST_CASE("The counting counts") {
  const long before = counted_heap::own_allocations;
  const shardkit::buffer<float> one(1);
  CHECK(counted_heap::own_allocations == before + 1);
}
