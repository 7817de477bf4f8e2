// A program whose main is doctest's own: on_ranks has nobody to run it, on_thread_ranks runs by itself.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <shardkit/testing/thread_ranks.hpp>

TEST_CASE("the main decides") {
  shardkit::testing::on_ranks([](auto& comm) { comm.barrier(); });
}

TEST_CASE("the case decides") {
  shardkit::testing::on_thread_ranks(3, [](auto& comm) { CHECK(comm.all_reduce(1, shardkit::sum) == 3); });
}
