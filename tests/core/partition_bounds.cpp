// Partitions with cuts of their own: given bounds and counts, measured weights.
#include <shardkit/core/partition.hpp>

#include <doctest/doctest.h>

#include <array>
#include <cmath>
#include <limits>
#include <thread>
#include <utility>
#include <vector>

using shardkit::partition;
using shardkit::usage_error;

namespace {

std::vector<std::size_t> counts_of(const partition& cut) {
  std::vector<std::size_t> counts;
  for (int rank = 0; rank < cut.parts(); ++rank) counts.push_back(cut.count(rank));
  return counts;
}

using counts = std::vector<std::size_t>;

}  // namespace

TEST_CASE("Given bounds are kept as they are, empty ranges included") {
  const partition cut = partition::from_bounds({0, 3, 3, 10, 10});
  CHECK(cut.parts() == 4);
  CHECK(cut.total() == 10);
  CHECK(counts_of(cut) == counts{3, 0, 7, 0});
  CHECK(cut.padded_count() == 7);
  CHECK(!cut.uniform());
  for (std::size_t i = 0; i < 10; ++i) CHECK(cut.owner(i) == (i < 3 ? 0 : 2));
  CHECK(counts_of(cut.scaled(5)) == counts{15, 0, 35, 0});
  CHECK(cut.scaled(5).owner(15) == 2);
  CHECK(partition::from_bounds({0, 2, 4}).uniform());

  const std::size_t bounds[] = {0, 1, 5};
  CHECK(counts_of(partition::from_bounds(bounds, 3)) == counts{1, 4});
  CHECK(counts_of(partition::from_bounds(std::vector<std::size_t>{0, 0, 0})) == counts{0, 0});
}

TEST_CASE("Counts of any integer range make the same cut as their bounds") {
  CHECK(partition::from_counts({3, 0, 7}) == partition::from_bounds({0, 3, 3, 10}));
  CHECK(partition::from_counts(std::vector<std::size_t>{1}) == partition::balanced(1, 1));
  CHECK(partition::from_counts(std::array<unsigned, 2>{4, 5}) == partition::balanced(9, 2).from_counts({4, 5}));
}

TEST_CASE("Bounds that are no cut are refused, naming the place") {
  CHECK_THROWS_AS(partition::from_bounds({}), usage_error);
  CHECK_THROWS_AS(partition::from_bounds({0}), usage_error);
  CHECK_THROWS_AS(partition::from_bounds({1, 2}), usage_error);
  CHECK_THROWS_WITH_AS(partition::from_bounds({0, 5, 4}),
                       doctest::Contains("bound 2 (4) lies below the one before it (5)"), usage_error);
  CHECK_THROWS_AS(partition::from_counts(std::vector<std::size_t>{}), usage_error);
}

TEST_CASE("Copies share one table, also among threads, and outlive the original") {
  partition copy;
  {
    const partition original = partition::from_counts({1, 2, 3});
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i)
      threads.emplace_back([original] {
        for (int round = 0; round < 1000; ++round) {
          partition mine = original;
          partition moved = std::move(mine);
          mine = moved;
        }
      });
    for (auto& thread : threads) thread.join();
    copy = original;
  }
  CHECK(counts_of(copy) == counts{1, 2, 3});
  partition other = partition::balanced(4, 2);
  std::swap(copy, other);
  CHECK(counts_of(copy) == counts{2, 2});
  CHECK(counts_of(other) == counts{1, 2, 3});
  other = *&other;
  CHECK(counts_of(other) == counts{1, 2, 3});
}

TEST_CASE("Weighted shares are proportional and cover everything") {
  CHECK(counts_of(partition::weighted(10, std::vector<double>{1, 1})) == counts{5, 5});
  CHECK(counts_of(partition::weighted(12, std::vector<double>{3, 2, 1})) == counts{6, 4, 2});
  CHECK(counts_of(partition::weighted(10, std::vector<float>{1, 0, 4})) == counts{2, 0, 8});
  CHECK(counts_of(partition::weighted(0, std::vector<int>{1, 2})) == counts{0, 0});
}

TEST_CASE("Each weighted bound is the unit nearest to the ideal one") {
  for (const std::size_t total : std::vector<std::size_t>{0, 1, 2, 7, 12, 31, 64, 100})
    for (const std::size_t unit : std::vector<std::size_t>{1, 2, 8, 40})
      for (const auto& weights : std::vector<std::vector<double>>{{1},
                                                                  {1, 1},
                                                                  {1, 0},
                                                                  {0, 1},
                                                                  {1, 2, 3},
                                                                  {5, 1, 1, 1},
                                                                  {0, 0, 1, 0},
                                                                  {0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7}}) {
        CAPTURE(total);
        CAPTURE(unit);
        const partition cut = partition::weighted(total, weights, unit);
        REQUIRE(cut.parts() == static_cast<int>(weights.size()));
        CHECK(cut.total() == total);
        double all = 0, reached = 0;
        for (double weight : weights) all += weight;
        for (int rank = 0; rank + 1 < cut.parts(); ++rank) {
          reached += weights[static_cast<std::size_t>(rank)];
          const double ideal = static_cast<double>(total) * reached / all;
          const double bound = static_cast<double>(cut.offset(rank) + cut.count(rank));
          CHECK((static_cast<std::size_t>(bound) % unit == 0 || bound == static_cast<double>(total)));
          double nearest = std::abs(static_cast<double>(total) - ideal);
          for (std::size_t place = 0; place <= total; place += unit)
            nearest = std::fmin(nearest, std::abs(static_cast<double>(place) - ideal));
          CHECK(std::abs(bound - ideal) <= nearest + 1e-9);
        }
      }
}

TEST_CASE("A rank of weight 0 gets nothing, also beside a short last unit") {
  CHECK(counts_of(partition::weighted(11, std::vector<double>{1, 0}, 8)) == counts{11, 0});
  CHECK(counts_of(partition::weighted(11, std::vector<double>{0, 1, 0}, 8)) == counts{0, 11, 0});
}

TEST_CASE("Weights that are no shares are refused") {
  CHECK_THROWS_AS(partition::weighted(4, std::vector<double>{}), usage_error);
  CHECK_THROWS_AS(partition::weighted(4, std::vector<double>{0, 0}), usage_error);
  CHECK_THROWS_AS(partition::weighted(4, std::vector<double>{1, -1}), usage_error);
  CHECK_THROWS_AS(partition::weighted(4, std::vector<double>{1, std::nan("")}), usage_error);
  CHECK_THROWS_AS(partition::weighted(4, std::vector<double>{1, std::numeric_limits<double>::infinity()}), usage_error);
  CHECK_THROWS_AS(partition::weighted(4, std::vector<double>{1, 1}, 0), usage_error);
}
