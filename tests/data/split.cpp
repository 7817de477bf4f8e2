#include "serial_model.hpp"

#include <shardkit/backends/self.hpp>
#include <shardkit/comm/traced.hpp>
#include <shardkit/data/split.hpp>
#include <shardkit/data/split_indices.hpp>

#include <doctest/doctest.h>

#include <array>
#include <numeric>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

using shardkit::layout;
using shardkit::participant;
using shardkit::partition;
using shardkit::split;
using shardkit::split_indices;

namespace {

std::vector<int> numbers(std::size_t n) {
  std::vector<int> all(n);
  std::iota(all.begin(), all.end(), 100);
  return all;
}

// Whether `share` is the items of `all` with these indices, at their own addresses.
template <class Share, class All>
bool is_view_of(const Share& share, const All& all, const serial_model::indices& expected) {
  if (share.size() != expected.size()) return false;
  for (std::size_t i = 0; i < share.size(); ++i)
    if (&share[i] != &all[expected[i]]) return false;
  return true;
}

// All that a participant needs of a communicator; one that is not rank 0 of 1.
struct recording_communicator {
  int rank() const { return 2; }
  int size() const { return 3; }
  void explain(shardkit::error& failure, const char* operation, const shardkit::call_site& site) {
    failure.attach({rank(), size(), "tensor", operation, 0, site});
  }
  void fail(const std::string& reason) { failures.push_back(reason); }

  std::vector<std::string> failures;
};

}  // namespace

TEST_CASE("split gives every rank the share of the serial model, for every length, size and layout") {
  for (const layout how : {layout::balanced, layout::block})
    for (int size = 1; size <= 9; ++size)
      for (std::size_t n = 0; n <= 64; ++n) {
        const auto expected = serial_model::shares(n, size, how);
        std::vector<int> all = numbers(n);
        for (int rank = 0; rank < size; ++rank) {
          CAPTURE(n);
          CAPTURE(size);
          CAPTURE(rank);
          const auto& mine = expected[static_cast<std::size_t>(rank)];
          const participant who(rank, size);
          CHECK(is_view_of(split(who, all, how), all, mine));
          const auto range = split_indices(who, n, how);
          CHECK(std::vector<std::size_t>(range.begin(), range.end()) == mine);
          CHECK(range.size() == mine.size());
          CHECK(range.empty() == mine.empty());
        }
      }
}

TEST_CASE("split is balanced unless told otherwise") {
  const auto all = numbers(5);
  CHECK(split(participant(1, 4), all).size() == 1);
  CHECK(split(participant(0, 4), all).size() == 2);
  CHECK(split(participant(2, 4), all, layout::block).size() == 1);
  CHECK(split(participant(3, 4), all, layout::block).size() == 0);
  CHECK(split_indices(participant(0, 4), 5).last == 2);
}

TEST_CASE("split follows a partition with cuts of its own, and one with replicas") {
  auto all = numbers(10);
  const partition cuts = partition::from_bounds({0, 7, 7, 10});
  CHECK(is_view_of(split(participant(0, 3), all, cuts), all, {0, 1, 2, 3, 4, 5, 6}));
  CHECK(split(participant(1, 3), all, cuts).empty());
  CHECK(is_view_of(split(participant(2, 3), all, cuts), all, {7, 8, 9}));
  const partition twice = partition::balanced(10, 4).replicas(2);
  CHECK(is_view_of(split(participant(2, 4), all, twice), all, {5, 6, 7, 8, 9}));
  CHECK(is_view_of(split(participant(3, 4), all, twice), all, {5, 6, 7, 8, 9}));
  CHECK(split_indices(participant(2, 3), 10, cuts).first == 7);
}

TEST_CASE("split takes whatever holds its elements side by side and keeps their constness") {
  const participant who(1, 2);
  std::vector<std::string> words{"a", "b", "c"};
  CHECK(split(who, words)[0] == "c");
  split(who, words)[0] = "changed";
  CHECK(words[2] == "changed");

  const std::vector<std::string>& unchangeable = words;
  static_assert(std::is_same_v<decltype(split(who, unchangeable)), shardkit::view<const std::string>>);
  std::array<double, 3> fixed{1, 2, 3};
  CHECK(split(who, fixed)[0] == 3);
  int plain[] = {1, 2, 3};
  CHECK(split(who, plain)[0] == 3);
  CHECK(split(who, std::span<const int>(plain))[0] == 3);
  CHECK(split(who, shardkit::view(plain, 3))[0] == 3);
  const std::vector<char> bytes{'x', 'y'};
  CHECK(split(who, bytes)[0] == 'y');
  shardkit::buffer<int> owned(3);
  CHECK(split(who, owned).data() == owned.data() + 2);
}

TEST_CASE("split works on constants at compile time") {
  static constexpr int primes[] = {2, 3, 5, 7, 11};
  static_assert(split(participant(1, 2), primes).size() == 2);
  static_assert(split(participant(1, 2), primes)[0] == 7);
  static_assert(*split_indices(participant(2, 3), 8).begin() == 6);
  CHECK(split(participant(1, 2), primes)[1] == 11);
}

TEST_CASE("split takes the rows of a matrix") {
  std::vector<float> data(5 * 4);
  const shardkit::matrix_view<float> wide(data.data(), 5, 3, 4);
  const auto mine = split(participant(1, 2), wide);
  CHECK(mine.data() == data.data() + 3 * 4);
  CHECK(mine.rows() == 2);
  CHECK(mine.columns() == 3);
  CHECK(mine.row_stride() == 4);
}

TEST_CASE("Lists of one length are split together") {
  std::vector<float> values(5);
  const std::vector<int> labels{1, 2, 3, 4, 5};
  std::vector<float> storage(10);
  for (int rank = 0; rank < 3; ++rank) {
    const participant who(rank, 3);
    const auto [x, y, rows] = split(who, values, labels, shardkit::matrix_view(storage.data(), 5, 2));
    const auto expected = serial_model::shares(5, 3, layout::balanced)[static_cast<std::size_t>(rank)];
    CHECK(is_view_of(x, values, expected));
    CHECK(is_view_of(y, labels, expected));
    CHECK(rows.rows() == expected.size());
    CHECK(rows.data() == storage.data() + 2 * expected[0]);

    const auto [p, q] = split(who, values, labels, layout::block);
    CHECK(p.size() == q.size());
    CHECK(p.size() == serial_model::shares(5, 3, layout::block)[static_cast<std::size_t>(rank)].size());
  }
}

TEST_CASE("Lists of unequal length are refused at size 1 as at any other, and fail the communicator first") {
  const std::vector<int> three(3), two(2);
  for (int size = 1; size <= 4; ++size) CHECK_THROWS_AS(split(participant(0, size), three, two), shardkit::usage_error);

  shardkit::self_communicator alone{shardkit::self_backend()};
  CHECK_THROWS_AS(split(alone, three, three, two), shardkit::usage_error);
  CHECK_THROWS_AS(alone.barrier(), shardkit::peer_failed);

  recording_communicator comm;
  CHECK_THROWS_AS(split(comm, three, two), shardkit::usage_error);
  REQUIRE(comm.failures.size() == 1);
  CHECK(comm.failures[0].find("list 2 has 2 items and the first has 3") != std::string::npos);
}

TEST_CASE("An error of split names rank, size, communicator, operation and the user's line") {
  recording_communicator comm;
  const std::vector<int> three(3);
  int line = 0;
  try {
    line = __LINE__ + 1;
    split(comm, three, partition::balanced(4, 3));
    FAIL("no error");
  } catch (const shardkit::usage_error& wrong) {
    CHECK(wrong.context().rank == 2);
    CHECK(wrong.context().size == 3);
    CHECK(wrong.context().communicator == "tensor");
    CHECK(wrong.context().operation == "split");
    CHECK(wrong.context().site.line == line);
    CHECK(std::string_view(wrong.context().site.file).find("split.cpp") != std::string_view::npos);
    CHECK(wrong.message().find("of 4 items and there are 3") != std::string::npos);
  }
}

TEST_CASE("An error of split tells the calls that came before, where they are traced") {
  const std::vector<int> three(3), two(2);
  auto comm = with_trace(shardkit::self_communicator{shardkit::self_backend(), "tensor"});
  int line = __LINE__ + 1;
  comm.barrier();
  const std::string before = "1 barrier(), done, at " __FILE__ ":" + std::to_string(line);
  try {
    line = __LINE__ + 1;
    split(comm, three, two);
    FAIL("no error");
  } catch (const shardkit::usage_error& wrong) {
    INFO(std::string(wrong.what()));
    CHECK(wrong.context().communicator == "tensor");
    CHECK(wrong.context().operation == "split");
    CHECK(wrong.context().site.line == line);
    CHECK(wrong.history().find(before) != std::string::npos);
  }
}

TEST_CASE("A partition over other counts is refused") {
  const std::vector<int> three(3);
  CHECK_THROWS_AS(split(participant(0, 2), three, partition::balanced(3, 3)), shardkit::usage_error);
  CHECK_THROWS_AS(split_indices(participant(0, 2), 3, partition::balanced(2, 2)), shardkit::usage_error);
}

TEST_CASE("There is no participant outside its group") {
  CHECK_THROWS_AS(participant(2, 2), shardkit::usage_error);
  CHECK_THROWS_AS(participant(-1, 2), shardkit::usage_error);
  CHECK_THROWS_AS(participant(0, 0), shardkit::usage_error);
}
