// Small collective helpers on one rank and on thread ranks, and what they do when a rank is missing or wrong.
#include "on_threads.hpp"

#include "failing_launch.hpp"
#include "metadata_cases.hpp"

#include <shardkit/backends/self.hpp>

#include <atomic>
#include <stdexcept>

#define ON_SELF_AND_THREADS(function, name)                                                   \
  TEST_CASE(name) {                                                                           \
    metadata::comm_type alone = erase(shardkit::self_communicator(shardkit::self_backend())); \
    metadata::function(alone);                                                                \
    for (int ranks = 1; ranks <= 5; ++ranks)                                                  \
      shardkit::run_ranks(ranks, [](thread_communicator& world) {                             \
        metadata::comm_type comm = erase(std::move(world));                                   \
        metadata::function(comm);                                                             \
      });                                                                                     \
  }
METADATA_CASES(ON_SELF_AND_THREADS)

TEST_CASE("nobody is past root_first before the root has left it") {
  for (int ranks : {2, 8}) {
    std::atomic<int> done{0};
    shardkit::run_ranks(ranks, [&](thread_communicator& comm) {
      shardkit::root_first turn(comm, 1);
      if (comm.rank() == 1) {
        shardkit::detail::sleep_seconds(10e-3);
        done = 1;
      }
      CHECK(done.load() == 1);
    });
  }
}

TEST_CASE("a rank that fails elsewhere ends the others' wait in each helper") {
  using helper = void (*)(thread_communicator&);
  const helper helpers[] = {
      [](thread_communicator& comm) { (void)any_of(comm, true); },
      [](thread_communicator& comm) { (void)all_gather_bytes(comm, std::string("x")); },
      [](thread_communicator& comm) { (void)broadcast_bytes(comm, std::string("x"), 2); },
      [](thread_communicator& comm) { (void)shardkit::on_rank(comm, 2, [] { return 1; }); },
      [](thread_communicator& comm) { shardkit::root_first turn(comm, 2); },
      [](thread_communicator& comm) {
        { shardkit::root_first turn(comm, 0); }
        comm.barrier();  // the guard of the root does not throw
      },
      [](thread_communicator& comm) { verify_same(comm, std::string("x"), "x"); },
      [](thread_communicator& comm) { (void)shardkit::pad_to_max(comm, std::vector<int>(1)); },
  };
  for (const helper& one : helpers) {
    CAPTURE(&one - helpers);
    const auto result = launch(3, [&](auto& comm, auto& clock) {
      if (comm.rank() == 2) {
        clock.strike();
        throw std::runtime_error("out of memory");
      }
      one(comm);
    });
    CHECK_THROWS_AS(std::rethrow_exception(result.thrown), std::runtime_error);
    check_peers(result, 2, "out of memory");
  }
}

TEST_CASE("a rank that does not exist is refused") {
  for (const int wrong : {-1, 3}) {
    const auto result = launch(3, [&](auto& comm, auto&) { shardkit::on_rank(comm, wrong, [] {}); });
    CHECK(result.caller.how == ending::usage);
    CHECK(result.caller.says("rank " + std::to_string(wrong) + " is not a rank of this communicator"));
    CHECK(result.caller.says("on_rank"));
  }
}
