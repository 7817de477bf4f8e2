#include "device_double.hpp"
#include "serial_model.hpp"

#include <shardkit/data/pad_and_split.hpp>
#include <shardkit/data/split.hpp>
#include <shardkit/data/split_segments.hpp>

#include <doctest/doctest.h>

#include <type_traits>
#include <vector>

using shardkit::fill_with;
using shardkit::layout;
using shardkit::participant;

namespace {

template <class T>
using device_view = shardkit::view<T, device_double>;
template <class T>
using device_matrix = shardkit::matrix_view<T, device_double>;

bool all_on_stream(int number) {
  for (const auto& copy : device_double::copies)
    if (copy.stream != number) return false;
  return !device_double::copies.empty();
}

}  // namespace

TEST_CASE("Shares of device memory are views of device memory, and nothing is copied") {
  std::vector<float> memory(10);
  device_double::copies.clear();
  const auto mine = split(participant(1, 3), device_view<float>(memory.data(), 10));
  static_assert(std::is_same_v<decltype(mine), const device_view<float>>);
  CHECK(mine.data() == memory.data() + 4);
  CHECK(device_double::copies.empty());
}

TEST_CASE("Padding on a device is a handful of copies on the caller's stream") {
  for (const std::size_t n : std::vector<std::size_t>{1, 2, 9, 64, 65})
    for (const layout how : {layout::balanced, layout::block})
      for (int rank = 0; rank < 8; ++rank) {
        std::vector<float> all(n * 2), out(20, -1);
        for (std::size_t i = 0; i < all.size(); ++i) all[i] = static_cast<float>(i);
        const auto expected = serial_model::padded_shares(n, 8, how)[static_cast<std::size_t>(rank)];
        device_double::copies.clear();
        pad_and_split_into(participant(rank, 8), device_matrix<const float>(all.data(), n, 2),
                           device_matrix<float>(out.data(), expected.size(), 2), shardkit::repeat_last{}, how, {5});
        for (std::size_t i = 0; i < expected.size(); ++i) {
          CHECK(out[2 * i] == static_cast<float>(2 * expected[i]));
          CHECK(out[2 * i + 1] == static_cast<float>(2 * expected[i] + 1));
        }
        CHECK(all_on_stream(5));
        CHECK(device_double::copies.size() <= 6);  // the share, the first padding row, and 1 + 2 + 4 + ... more
      }
}

TEST_CASE("A padding row on a device is one that lies there") {
  const std::vector<int> all{1, 2, 3, 4, 5, 6}, padding{8, 9};
  std::vector<int> out(4);
  pad_and_split_into(participant(1, 2), device_matrix<const int>(all.data(), 3, 2),
                     device_matrix<int>(out.data(), 2, 2), fill_with{device_view<const int>(padding.data(), 2)});
  CHECK(out == std::vector<int>{5, 6, 8, 9});
}

TEST_CASE("Segments are copied on the caller's stream, nothing for a segment without items") {
  const shardkit::segmented_partition segments({shardkit::partition::balanced(4, 2), shardkit::partition::block(1, 2)});
  std::vector<int> fused{0, 1, 2, 3, 10}, shard(2), merged(5, -1);
  device_double::copies.clear();
  split_segments(participant(1, 2), device_view<const int>(fused.data(), 5), device_view<int>(shard.data(), 2),
                 segments, {3});
  CHECK(shard == std::vector<int>{2, 3});
  CHECK(all_on_stream(3));
  CHECK(device_double::copies.size() == 1);
  merge_segments(participant(1, 2), device_view<const int>(shard.data(), 2), device_view<int>(merged.data(), 5),
                 segments, {3});
  CHECK(merged == std::vector<int>{-1, -1, 2, 3, -1});
}
