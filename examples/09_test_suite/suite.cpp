// Cases that run on any number of ranks, threads or processes alike. Stock doctest.
#include <shardkit/data/gather_trim.hpp>
#include <shardkit/data/split.hpp>
#include <shardkit/testing/on_ranks.hpp>

#include <vector>

using shardkit::testing::on_ranks;

// [cases]
TEST_CASE("every rank gets the sum of all") {
  on_ranks(
      [](auto& comm) { CHECK(comm.all_reduce(comm.rank(), shardkit::sum) == comm.size() * (comm.size() - 1) / 2); });
}

TEST_CASE("a batch comes back in order") {
  SHARDKIT_NEEDS_RANKS(2);
  on_ranks([](auto& comm) {
    const std::vector<int> batch = {2, 7, 1, 8, 2};
    const auto mine = shardkit::split(comm, batch);
    const auto all = shardkit::gather_trim(comm, mine, batch.size());
    CHECK(std::vector<int>(all.begin(), all.end()) == batch);
  });
}
// [cases]
