// Test cases that fail in the ways that mains.cpp asks for by name: it runs this program, once on thread ranks and once
// under mpiexec. Rank 1 is the one that fails.
#include <shardkit/testing/on_ranks.hpp>

#include <chrono>
#include <stdexcept>
#include <thread>

using shardkit::testing::on_ranks;

namespace {

template <class Comm>
int sum_of_ones(Comm& comm) {
  return comm.all_reduce(1, shardkit::sum);
}

}  // namespace

TEST_SUITE("passing") {
  TEST_CASE("ranks meet") {
    on_ranks([](auto& comm) {
      INFO("seen by no one");
      CHECK(comm.size() == shardkit::testing::ranks());
      CHECK(sum_of_ones(comm) == comm.size());
    });
  }
  TEST_CASE("a case without ranks") { CHECK(1 + 1 == 2); }
  TEST_CASE("subcases outside of the body") {
    int factor = 1;
    SUBCASE("once") {}
    SUBCASE("twice") { factor = 2; }
    on_ranks([&](auto& comm) { CHECK(comm.all_reduce(factor, shardkit::sum) == factor * comm.size()); });
    on_ranks([&](auto& comm) { comm.barrier(); });
  }
}

TEST_SUITE("failing") {
  TEST_CASE("a check fails") {
    on_ranks([](auto& comm) {
      INFO("the disk has ", 7, " sectors");
      CHECK(comm.rank() != 1);
      CHECK(sum_of_ones(comm) == comm.size());
    });
  }
  TEST_CASE("an exception at the end") {
    on_ranks([](auto& comm) {
      comm.barrier();
      if (comm.rank() == 1) throw std::runtime_error("the disk is full");
    });
  }
  TEST_CASE("exceptions of two ranks") {
    on_ranks([](auto& comm) {
      comm.barrier();
      if (comm.rank() == 0) throw std::runtime_error("no paper");
      if (comm.rank() == 1) throw 7;
    });
  }
  TEST_CASE("a requirement at the end") {
    on_ranks([](auto& comm) {
      comm.barrier();
      REQUIRE(comm.rank() != 1);
    });
    FAIL("the case goes on although a rank has left it");
  }
  TEST_CASE("still alive") {
    on_ranks([](auto& comm) { CHECK(sum_of_ones(comm) == comm.size()); });
  }
}

TEST_SUITE("stuck") {
  TEST_CASE("a requirement before a barrier") {
    on_ranks([](auto& comm) {
      REQUIRE(comm.rank() != 1);
      comm.barrier();
    });
  }
  TEST_CASE("a rank sleeps") {
    on_ranks([](auto& comm) {
      if (comm.rank() == 1) std::this_thread::sleep_for(std::chrono::seconds(60));
    });
  }
}

TEST_SUITE("demanding") {
  TEST_CASE("needs seven ranks") {
    SHARDKIT_NEEDS_RANKS(7);
    on_ranks([](auto& comm) { CHECK(comm.size() >= 7); });
  }
  TEST_CASE("needs two ranks") {
    SHARDKIT_NEEDS_RANKS(2);
    on_ranks([](auto& comm) { CHECK(comm.size() >= 2); });
  }
}
