// The splits and gathers of data/ on device memory: copies only, on the caller's stream, the same bits as on the host.
#include "fixture.hpp"

#include <data/serial_model.hpp>

#include <shardkit/data/gather_trim.hpp>
#include <shardkit/data/matrix_split.hpp>
#include <shardkit/data/pad_and_split.hpp>
#include <shardkit/data/split.hpp>
#include <shardkit/data/split_segments.hpp>

#include <utility>

using shardkit::buffer;
using shardkit::cuda_space;
using shardkit::cuda_stream;
using shardkit::layout;
using shardkit::matrix_view;
using shardkit::participant;
using shardkit::partition;
using shardkit::view;
using namespace cuda_tests;

namespace {

using floats = std::vector<float>;
template <class T>
using device_matrix = matrix_view<T, cuda_space>;

floats awkward(std::size_t count) {
  floats result(count);
  for (std::size_t i = 0; i < count; ++i) result[i] = serial_model::awkward_float(i);
  return result;
}

// Rows `rows` of `all` [*, columns].
floats rows_of(const floats& all, const std::vector<std::size_t>& rows, std::size_t columns) {
  floats result;
  for (const std::size_t row : rows)
    for (std::size_t column = 0; column < columns; ++column) result.push_back(all[row * columns + column]);
  return result;
}

}  // namespace

TEST_CASE("Every padded share on a device has the bits of the serial model, and gather_trim restores the list") {
  const clean_machine machine;
  const cuda_stream stream;
  one_rank_communicator alone{one_rank()};
  for (const std::size_t n : extents{0, 1, 2, 3, 7, 64, 65})
    for (const int size : {1, 2, 3, 8})
      for (const layout how : {layout::balanced, layout::block}) {
        constexpr std::size_t columns = 3;
        const floats all = awkward(n * columns);
        const auto device = on_device(all);
        const auto shares = serial_model::padded_shares(n, size, how);
        buffer<float, cuda_space> restored(n * columns);
        for (int rank = 0; rank < size; ++rank) {
          const auto& mine = shares[static_cast<std::size_t>(rank)];
          buffer<float, cuda_space> share(mine.size() * columns);
          pad_and_split_into(participant(rank, size), device_matrix<const float>(device.data(), n, columns),
                             device_matrix<float>(share.data(), mine.size(), columns), shardkit::repeat_last{}, how,
                             stream);
          CHECK(serial_model::same_bits(on_host(share, stream), rows_of(all, mine, columns)));
          const partition part = how == layout::block ? partition::block(n, size) : partition::balanced(n, size);
          const std::size_t owned = part.count(rank);
          gather_trim_into(alone, device_matrix<const float>(share.data(), owned, columns),
                           device_matrix<float>(restored.data() + part.offset(rank) * columns, owned, columns),
                           layout::balanced, stream);
          synchronize(stream, deadline);
        }
        CHECK(serial_model::same_bits(on_host(restored, stream), all));
      }
}

TEST_CASE("Shares of rows and columns on a device are views, and copies of them are exact") {
  const clean_machine machine;
  const cuda_stream stream;
  constexpr std::size_t rows = 7, columns = 13;
  const floats all = awkward(rows * columns);
  const auto device = on_device(all);
  const device_matrix<const float> whole(device.data(), rows, columns);
  for (const int size : {1, 2, 5, 15})
    for (int rank = 0; rank < size; ++rank) {
      const auto by_rows = split_rows(participant(rank, size), whole);
      const auto by_columns = split_columns(participant(rank, size), whole);
      buffer<float, cuda_space> row_share(by_rows.rows() * columns), column_share(rows * by_columns.columns());
      copy(device_matrix<float>(row_share.data(), by_rows.rows(), columns), by_rows, stream);
      copy(device_matrix<float>(column_share.data(), rows, by_columns.columns()), by_columns, stream);
      const auto dealt = serial_model::shares(columns, size, layout::balanced)[static_cast<std::size_t>(rank)];
      floats expected;
      for (std::size_t row = 0; row < rows; ++row)
        for (const std::size_t column : dealt) expected.push_back(all[row * columns + column]);
      CHECK(serial_model::same_bits(on_host(column_share, stream), expected));
      const auto dealt_rows = serial_model::shares(rows, size, layout::balanced)[static_cast<std::size_t>(rank)];
      CHECK(serial_model::same_bits(on_host(row_share, stream), rows_of(all, dealt_rows, columns)));
    }
}

TEST_CASE("Columns that one rank gathers on a device land in a wider matrix, between what is there") {
  const clean_machine machine;
  const cuda_stream stream;
  one_rank_communicator alone{one_rank()};
  const floats all = awkward(15);
  const auto local = on_device(all);
  auto out = on_device(floats(21, 5));
  gather_columns(alone, device_matrix<const float>(local.data(), 3, 5), device_matrix<float>(out.data(), 3, 5, 7),
                 partition::balanced(5, 1), view<float, cuda_space>(), stream);
  const floats result = on_host(out, stream);
  for (std::size_t row = 0; row < 3; ++row) {
    CHECK(serial_model::same_bits(floats(&result[row * 7], &result[row * 7] + 5),
                                  floats(&all[row * 5], &all[row * 5] + 5)));
    CHECK(result[row * 7 + 5] == 5);
    CHECK(result[row * 7 + 6] == 5);
  }
}

TEST_CASE("Fused segments are taken apart and put together again on a device") {
  const clean_machine machine;
  const cuda_stream stream;
  const floats fused = awkward(22);
  const auto device = on_device(fused);
  for (const int size : {1, 2, 3, 6}) {
    const shardkit::segmented_partition segments(
        {partition::balanced(12, size), partition::balanced(5, size), partition::balanced(5, size)});
    auto merged = on_device(floats(22, -1));
    for (int rank = 0; rank < size; ++rank) {
      buffer<float, cuda_space> shard(segments.count(rank));
      split_segments(participant(rank, size), device, shard, segments, stream);
      floats expected;
      for (const auto& [total, first] : {std::pair<std::size_t, std::size_t>{12, 0}, {5, 12}, {5, 17}}) {
        const auto dealt = serial_model::shares(total, size, layout::balanced);
        for (const std::size_t i : dealt[static_cast<std::size_t>(rank)]) expected.push_back(fused[first + i]);
      }
      CHECK(serial_model::same_bits(on_host(shard, stream), expected));
      merge_segments(participant(rank, size), shard, merged, segments, stream);
      synchronize(stream, deadline);
    }
    CHECK(serial_model::same_bits(on_host(merged, stream), fused));
  }
}

TEST_CASE("What a device refuses in a split names the caller's line") {
  const clean_machine machine;
  if (!shardkit_double::active()) return;
  const cuda_stream stream;
  buffer<float, cuda_space> all(6), share(2);
  shardkit_double::fail_call("cudaMemcpyAsync", 1, cudaErrorInvalidValue);
  // Inside of a macro's arguments compilers disagree on the line.
  const auto refused = [&] { pad_and_split_into(participant(1, 3), all, share, {}, {}, stream); };
  const std::string place = "splits.cpp:" + std::to_string(__LINE__ - 1);
  CHECK_THROWS_WITH_AS(refused(), doctest::Contains(place.c_str()), shardkit::cuda_error);
}
