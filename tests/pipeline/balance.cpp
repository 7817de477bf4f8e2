#include <shardkit/pipeline/balance.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <random>
#include <string>
#include <vector>

using shardkit::balance;
using shardkit::balance_options;
using shardkit::partition;

namespace {

std::vector<double> stage_costs(const std::vector<double>& layers, const partition& cut,
                                const balance_options& options) {
  std::vector<double> costs;
  for (int stage = 0; stage < cut.parts(); ++stage) {
    double cost = 0;
    for (std::size_t i = 0; i < cut.count(stage); ++i) cost += layers[cut.offset(stage) + i];
    costs.push_back(cost);
  }
  costs.front() += options.first_extra;
  costs.back() += options.last_extra;
  return costs;
}

double slowest(const std::vector<double>& costs) { return *std::max_element(costs.begin(), costs.end()); }

double sum_of_squares(const std::vector<double>& costs) {
  double sum = 0;
  for (double cost : costs) sum += cost * cost;
  return sum;
}

struct best_cut {
  double slowest = std::numeric_limits<double>::infinity();
  double sum_of_squares = std::numeric_limits<double>::infinity();
};

// Every composition of the layers into `stages` counts, one after the other.
void try_all(const std::vector<double>& layers, const balance_options& options, std::vector<std::size_t>& counts,
             std::size_t left, int stages, std::size_t least, best_cut& best) {
  if (stages == 1) {
    if (left < least) return;
    counts.push_back(left);
    const auto costs = stage_costs(layers, partition::from_counts(counts), options);
    counts.pop_back();
    const double worst = slowest(costs), squares = sum_of_squares(costs);
    if (worst < best.slowest || (worst == best.slowest && squares < best.sum_of_squares)) best = {worst, squares};
    return;
  }
  for (std::size_t count = least; count <= left; ++count) {
    counts.push_back(count);
    try_all(layers, options, counts, left - count, stages - 1, least, best);
    counts.pop_back();
  }
}

std::vector<std::size_t> counts_of(const partition& cut) {
  std::vector<std::size_t> counts;
  for (int stage = 0; stage < cut.parts(); ++stage) counts.push_back(cut.count(stage));
  return counts;
}

template <class Call>
std::string refusal(Call call) {
  try {
    call();
  } catch (const shardkit::usage_error& wrong) {
    return wrong.message();
  }
  return "nothing was thrown";
}

}  // namespace

TEST_CASE("balance finds the least slowest stage, and the evenest of such cuts, as trying all cuts does") {
  std::mt19937 random(20240229);
  for (std::size_t layers = 0; layers <= 8; ++layers)
    for (int stages = 1; stages <= 5; ++stages)
      for (int trial = 0; trial < 12; ++trial) {
        // Whole numbers, so that sums are exact in any order.
        std::vector<double> costs;
        for (std::size_t i = 0; i < layers; ++i) costs.push_back(static_cast<double>(random() % 10));
        const balance_options options{static_cast<double>(random() % 15), static_cast<double>(random() % 15), {}};
        CAPTURE(layers);
        CAPTURE(stages);
        CAPTURE(trial);
        const partition cut = balance(costs, stages, options);
        REQUIRE(cut.parts() == stages);
        REQUIRE(cut.total() == layers);

        best_cut best;
        std::vector<std::size_t> counts;
        const std::size_t least = layers < static_cast<std::size_t>(stages) ? 0 : 1;
        try_all(costs, options, counts, layers, stages, least, best);
        CHECK(slowest(stage_costs(costs, cut, options)) == best.slowest);
        CHECK(sum_of_squares(stage_costs(costs, cut, options)) == best.sum_of_squares);
        for (std::size_t count : counts_of(cut)) CHECK(count >= least);
      }
}

TEST_CASE("Equal layers without extras are cut as a balanced partition, fewer layers than stages too") {
  for (std::size_t layers = 0; layers <= 40; ++layers)
    for (int stages = 1; stages <= 12; ++stages) CHECK(balance(layers, stages) == partition::balanced(layers, stages));
}

TEST_CASE("Thirty layers make way for the embedding and the head") {
  using counts = std::vector<std::size_t>;
  CHECK(counts_of(balance(30, 3, {.first_extra = 2, .last_extra = 4})) == counts{10, 12, 8});
  CHECK(counts_of(balance(30, 3, {.last_extra = 6})) == counts{12, 12, 6});
  CHECK(counts_of(balance(30, 4, {.first_extra = 1, .last_extra = 5})) == counts{8, 9, 9, 4});
  CHECK(counts_of(balance(30, 4)) == counts{8, 8, 7, 7});
  // A head that costs more than everything else still leaves its stage one layer.
  CHECK(counts_of(balance(30, 3, {.last_extra = 100})) == counts{15, 14, 1});
  CHECK(counts_of(balance(1, 1, {.first_extra = 3, .last_extra = 100})) == counts{1});
}

TEST_CASE("Costs may be any numbers: bytes, floats, and so large or small that their squares overflow or vanish") {
  using counts = std::vector<std::size_t>;
  CHECK(counts_of(balance(std::vector<std::uint64_t>{4'000'000'000, 1'000'000'000, 1'000'000'000, 2'000'000'000}, 2)) ==
        counts{1, 3});
  CHECK(counts_of(balance(std::vector<float>{1, 1, 1, 3}, 2)) == counts{3, 1});
  const int ints[] = {1, 2, 3};
  CHECK(counts_of(balance(ints, 2)) == counts{2, 1});
  for (const double unit : {1e-320, 1e-300, 0.1, 1e160, 1e300})
    CHECK(counts_of(balance(std::vector<double>(10, unit), 4)) == counts{3, 3, 2, 2});
}

TEST_CASE("A thousand uneven layers are cut within a layer of the ideal") {
  std::mt19937 random(7);
  std::vector<double> costs;
  double total = 0;
  for (int i = 0; i < 1000; ++i) {
    costs.push_back(1 + static_cast<double>(random()) / 4294967296.0);
    total += costs.back();
  }
  const double slow = slowest(stage_costs(costs, balance(costs, 16), {}));
  CHECK(slow >= total / 16);
  CHECK(slow <= total / 16 + 2);
}

TEST_CASE("Given cuts win over the costs, and may leave stages empty") {
  using counts = std::vector<std::size_t>;
  const std::vector<double> costs{9, 1, 1, 1, 1, 1};
  CHECK(counts_of(balance(costs, 3, {.cuts = {4, 5}})) == counts{4, 1, 1});
  CHECK(counts_of(balance(6, 3, {.last_extra = 50, .cuts = {0, 6}})) == counts{0, 6, 0});
}

TEST_CASE("What cannot be balanced is refused with the numbers and the remedy") {
  CHECK(refusal([] { balance(4, 0); }) == "balance: 0 stages; at least 1 is needed");
  CHECK(refusal([] {
          balance(std::vector<double>{1, -2}, 2);
        }) == "balance: the cost of layer 1 is -2.000000; give a finite number that is not negative");
  CHECK(refusal([] { balance(std::vector<double>{std::numeric_limits<double>::quiet_NaN()}, 1); }) !=
        "nothing was thrown");
  CHECK(refusal([] {
          balance(std::vector<double>{1e308, 1e308}, 1);
        }) == "balance: the cost of all layers together is inf; give a finite number that is not negative");
  CHECK(refusal([] { balance(4, 2, {.first_extra = -1}); }) ==
        "balance: the cost of first_extra is -1.000000; give a finite number that is not negative");
  CHECK(refusal([] { balance(4, 3, {.cuts = {2}}); }) ==
        "balance: 1 cuts make 2 stages of 3; give 2 cuts, the first layer of every stage but stage 0, or none");
  CHECK(refusal([] {
          balance(4, 3, {.cuts = {3, 2}});
        }) == "balance: cut 2 does not lie between 3 and 4, the number of layers; cuts ascend");
  CHECK(refusal([] { balance(4, 2, {.cuts = {5}}); }) ==
        "balance: cut 5 does not lie between 0 and 4, the number of layers; cuts ascend");
}
