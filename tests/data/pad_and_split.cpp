#include "serial_model.hpp"

#include <shardkit/backends/self.hpp>
#include <shardkit/data/pad_and_split.hpp>

#include <doctest/doctest.h>

#include <limits>
#include <string>
#include <vector>

using shardkit::fill_with;
using shardkit::layout;
using shardkit::matrix_view;
using shardkit::pad_and_split;
using shardkit::pad_and_split_into;
using shardkit::participant;
using shardkit::partition;

namespace {

std::vector<float> awkward_floats(std::size_t n) {
  std::vector<float> all;
  for (std::size_t i = 0; i < n; ++i) all.push_back(serial_model::awkward_float(i));
  return all;
}

// The rows of `columns` elements with these indices.
std::vector<float> rows_at(const std::vector<float>& all, std::size_t columns, const serial_model::indices& rows) {
  std::vector<float> picked;
  for (std::size_t row : rows)
    for (std::size_t column = 0; column < columns; ++column) picked.push_back(all[row * columns + column]);
  return picked;
}

}  // namespace

TEST_CASE("pad_and_split repeats the last item of all bit for bit, for every length, size and layout") {
  for (const layout how : {layout::balanced, layout::block})
    for (int size = 1; size <= 9; ++size)
      for (std::size_t n = 0; n <= 64; ++n) {
        const std::vector<float> all = awkward_floats(n);
        const auto expected = serial_model::padded_shares(n, size, how);
        for (int rank = 0; rank < size; ++rank) {
          CAPTURE(n);
          CAPTURE(size);
          CAPTURE(rank);
          const auto mine = rows_at(all, 1, expected[static_cast<std::size_t>(rank)]);
          CHECK(serial_model::same_bits(pad_and_split(participant(rank, size), all, how), mine));
        }
      }
}

TEST_CASE("In the block layout the padded shares are min(i, n - 1), so that they need only be cut off") {
  for (int size = 1; size <= 9; ++size)
    for (std::size_t n = 1; n <= 40; ++n) {
      std::vector<std::size_t> all(n), gathered;
      for (std::size_t i = 0; i < n; ++i) all[i] = i;
      for (int rank = 0; rank < size; ++rank)
        for (std::size_t item : pad_and_split(participant(rank, size), all, layout::block)) gathered.push_back(item);
      CHECK(gathered.size() ==
            (n + static_cast<std::size_t>(size) - 1) / static_cast<std::size_t>(size) * static_cast<std::size_t>(size));
      for (std::size_t i = 0; i < gathered.size(); ++i) CHECK(gathered[i] == (i < n ? i : n - 1));
    }
}

TEST_CASE("pad_and_split pads matrices with whole rows, also where rows have gaps between them") {
  for (const layout how : {layout::balanced, layout::block})
    for (const std::size_t columns : {std::size_t{0}, std::size_t{1}, std::size_t{3}})
      for (const std::size_t gap : {std::size_t{0}, std::size_t{2}})
        for (int size = 1; size <= 5; ++size)
          for (std::size_t n = 0; n <= 13; ++n) {
            const std::size_t stride = columns + gap;
            const std::vector<float> all = awkward_floats(n * stride);
            const matrix_view<const float> matrix(all.data(), n, columns, stride);
            std::vector<float> dense;
            for (std::size_t row = 0; row < n; ++row)
              dense.insert(dense.end(), matrix.row(row).begin(), matrix.row(row).end());
            const auto expected = serial_model::padded_shares(n, size, how);
            for (int rank = 0; rank < size; ++rank) {
              const auto& mine = expected[static_cast<std::size_t>(rank)];
              const auto padded = pad_and_split(participant(rank, size), matrix, how);
              CHECK(padded.rows() == mine.size());
              CHECK(padded.columns() == columns);
              CHECK(serial_model::same_bits(padded, rows_at(dense, columns, mine)));
            }
          }
}

TEST_CASE("pad_and_split works on strings and on bool") {
  const std::vector<std::string> prompts{"first", "a prompt too long for the small string optimisation", "last"};
  CHECK(pad_and_split(participant(0, 2), prompts) == std::vector<std::string>{prompts[0], prompts[1]});
  CHECK(pad_and_split(participant(1, 2), prompts) == std::vector<std::string>{"last", "last"});
  CHECK(pad_and_split(participant(4, 5), prompts, layout::block) == std::vector<std::string>{"last"});

  const bool mask[] = {true, false, true};
  const auto mine = pad_and_split(participant(1, 2), mask);
  REQUIRE(mine.size() == 2);
  CHECK(mine[0]);
  CHECK(mine[1]);
}

TEST_CASE("pad_and_split keeps lists of one length together") {
  const std::vector<int> ids{1, 2, 3};
  const std::vector<std::string> names{"a", "b", "c"};
  const std::vector<float> storage{0, 1, 2, 3, 4, 5};
  const auto [i, s, m] = pad_and_split(participant(1, 2), ids, names, matrix_view(storage.data(), 3, 2));
  CHECK(i.size() == 2);
  CHECK(i[1] == 3);
  CHECK(s == std::vector<std::string>{"c", "c"});
  CHECK(m.matrix()(1, 1) == 5);
  const auto [x, y] = pad_and_split(participant(3, 4), ids, names, partition::from_counts({0, 0, 3, 0}));
  CHECK(x.size() == 3);
  CHECK(x[0] == 3);
  CHECK(y.size() == 3);
  CHECK_THROWS_AS(pad_and_split(participant(0, 1), ids, std::vector<int>(2)), shardkit::usage_error);
}

TEST_CASE("A given fill stands in place of the last item") {
  const float nothing = -std::numeric_limits<float>::infinity();
  const std::vector<float> scores{1, 2, 3, 4, 5};
  const auto mine = pad_and_split(participant(3, 4), scores, fill_with{nothing});
  REQUIRE(mine.size() == 2);
  CHECK(mine[0] == 5);
  CHECK(mine[1] == nothing);
  CHECK(pad_and_split(participant(2, 4), scores, fill_with{0}, layout::block)[1] == 0);
  CHECK(pad_and_split(participant(3, 4), scores, fill_with{-1.0f}, layout::block)[1] == -1);

  const auto row = pad_and_split(participant(1, 2), matrix_view(scores.data(), 1, 5), fill_with{7.0f});
  CHECK(std::vector<float>(row.data(), row.data() + row.size()) == std::vector<float>(5, 7.0f));
  const std::vector<float> padding{9, 8, 7, 6, 5};
  const auto given =
      pad_and_split(participant(1, 2), matrix_view(scores.data(), 1, 5), fill_with{shardkit::view(padding.data(), 5)});
  CHECK(serial_model::same_bits(given, padding));
  CHECK_THROWS_AS(
      pad_and_split(participant(1, 2), matrix_view(scores.data(), 1, 5), fill_with{shardkit::view(padding.data(), 4)}),
      shardkit::usage_error);
  // Refused on the rank that needs no padding, too.
  CHECK_THROWS_AS(
      pad_and_split(participant(0, 2), matrix_view(scores.data(), 1, 5), fill_with{shardkit::view(padding.data(), 4)}),
      shardkit::usage_error);
  const auto word = pad_and_split(participant(1, 2), std::vector<std::string>{"a"}, fill_with{"none"});
  CHECK(word == std::vector<std::string>{"none"});
}

TEST_CASE("pad_and_split_into writes the same to memory of the caller and nothing beside it") {
  const std::size_t columns = 3, stride = 5;
  for (const layout how : {layout::balanced, layout::block})
    for (int size = 1; size <= 5; ++size)
      for (std::size_t n = 0; n <= 11; ++n) {
        const std::vector<float> all = awkward_floats(n * columns);
        const matrix_view<const float> matrix(all.data(), n, columns);
        for (int rank = 0; rank < size; ++rank) {
          const participant who(rank, size);
          const auto expected = pad_and_split(who, matrix, how);
          std::vector<float> memory((expected.rows() + 1) * stride, 42.0f);
          const matrix_view<float> out(memory.data(), expected.rows(), columns, stride);
          pad_and_split_into(who, matrix, out, shardkit::repeat_last{}, how);
          for (std::size_t row = 0; row < out.rows(); ++row) {
            CHECK(serial_model::same_bits(out.row(row), expected.matrix().row(row)));
            CHECK(memory[row * stride + 3] == 42.0f);
            CHECK(memory[row * stride + 4] == 42.0f);
          }
          CHECK(memory[expected.rows() * stride] == 42.0f);
        }
      }
  std::vector<int> out(2);
  pad_and_split_into(participant(1, 2), std::vector<int>{1, 2, 3}, out, fill_with{9});
  CHECK(out == std::vector<int>{3, 9});
}

TEST_CASE("Output of the wrong size is refused before anything is written, and fails the communicator") {
  shardkit::self_communicator comm{shardkit::self_backend()};
  const std::vector<int> all{1, 2, 3};
  std::vector<int> out(4, 7);
  CHECK_THROWS_WITH_AS(pad_and_split_into(comm, all, out),
                       doctest::Contains("output has 4 items of 1 elements and needs 3 of 1"), shardkit::usage_error);
  CHECK(out == std::vector<int>(4, 7));
  CHECK_THROWS_AS(comm.barrier(), shardkit::peer_failed);
  std::vector<int> wide(6);
  CHECK_THROWS_AS(pad_and_split_into(participant(0, 2), all, matrix_view(wide.data(), 2, 3)), shardkit::usage_error);
}
