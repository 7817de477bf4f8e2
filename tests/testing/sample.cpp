// Test cases that fail in the ways that mains.cpp asks for by name: it runs this program, once on thread ranks and once
// under mpiexec. Rank 1 is the one that fails.
#include <shardkit/testing/on_ranks.hpp>

#include <chrono>
#include <csignal>
#include <stdexcept>
#include <thread>

using shardkit::testing::on_ranks;

namespace {

template <class Comm>
int sum_of_ones(Comm& comm) {
  return comm.all_reduce(1, shardkit::sum);
}

bool stays_behind = false;

// A listener of the program's own that never comes back on one rank, after all cases have ended.
struct staying : doctest::IReporter {
  explicit staying(const doctest::ContextOptions&) {}
  void test_run_end(const doctest::TestRunStats&) override {
    if (stays_behind) std::this_thread::sleep_for(std::chrono::seconds(60));
  }
  void report_query(const doctest::QueryData&) override {}
  void test_run_start() override {}
  void test_case_start(const doctest::TestCaseData&) override {}
  void test_case_reenter(const doctest::TestCaseData&) override {}
  void test_case_end(const doctest::CurrentTestCaseStats&) override {}
  void test_case_exception(const doctest::TestCaseException&) override {}
  void subcase_start(const doctest::SubcaseSignature&) override {}
  void subcase_end() override {}
  void log_assert(const doctest::AssertData&) override {}
  void log_message(const doctest::MessageData&) override {}
  void test_case_skipped(const doctest::TestCaseData&) override {}
};
DOCTEST_REGISTER_LISTENER("staying", 2, staying);

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
  TEST_CASE("a rank sleeps for longer than it may" * doctest::timeout(1.5)) {
    on_ranks([](auto& comm) {
      if (comm.rank() == 1) std::this_thread::sleep_for(std::chrono::seconds(60));
    });
  }
  TEST_CASE("a rank stays behind") {
    on_ranks([](auto& comm) {
      if (comm.rank() == 1) stays_behind = true;
    });
  }
  TEST_CASE("a rank crashes") {
    on_ranks([](auto& comm) {
      if (comm.rank() == 1) std::raise(SIGSEGV);
      comm.barrier();
    });
  }
}

TEST_SUITE("slow") {
  TEST_CASE("slower than others may be" * doctest::timeout(20)) {
    std::this_thread::sleep_for(std::chrono::milliseconds(700));
    on_ranks([](auto& comm) { comm.barrier(); });
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
