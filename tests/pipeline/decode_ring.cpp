#include "ring_cases.hpp"

#include <shardkit/backends/self.hpp>
#include <shardkit/comm/any_communicator.hpp>

#include <atomic>
#include <string>
#include <utility>
#include <vector>

using namespace pipeline_test;
using shardkit::run_ranks;
using shardkit::thread_communicator;

TEST_CASE("The ring equals a serial run for any stages and groups, of which each ends when it likes") {
  for (int stages = 1; stages <= 5; ++stages)
    run_ranks(stages, within(60), [](thread_communicator& comm) { ring_over_all_group_counts(comm, 6); });
}

TEST_CASE("The ring runs over an erased communicator, and over one rank by itself") {
  run_ranks(3, within(60), [](thread_communicator& comm) {
    auto erased = shardkit::erase(std::move(comm));
    ring_over_all_group_counts(erased, 2);
  });
  shardkit::self_communicator alone{shardkit::self_backend()};
  ring_over_all_group_counts(alone, 3);
}

TEST_CASE("More groups than a channel takes messages pass round without a stop") {
  for (int stages = 2; stages <= 3; ++stages)
    run_ranks(stages, within(60), [](thread_communicator& comm) { ring_decodes_again_and_again(comm, 70, 3); });
}

TEST_CASE("One rank makes the same calls of each group in the same order as several") {
  const auto calls_of = [](int stages) {
    std::vector<std::string> calls(3);
    run_ranks(stages, within(60), [&](thread_communicator& comm) {
      decode_ring ring(comm, {{"x", dtype::f32, 1, 1}}, {"y", dtype::f32, 1, 1}, 3);
      ring.run([](int, int) { return 1; },
               [&](int group, int step, const hop<>&, hop<>&, hop<>&) {
                 if (!ring.is_first()) return;
                 calls[static_cast<std::size_t>(group)] += "forward " + std::to_string(step) + ", ";
               },
               [&](int group, int step, const hop<>&) {
                 calls[static_cast<std::size_t>(group)] += "accept " + std::to_string(step) + ", ";
                 return step < group;
               });
    });
    return calls;
  };
  const auto alone = calls_of(1);
  CHECK(alone[0] == "forward 0, accept 0, ");
  CHECK(alone[2] == "forward 0, accept 0, forward 1, accept 1, forward 2, accept 2, ");
  CHECK(calls_of(2) == alone);
  CHECK(calls_of(4) == alone);
}

TEST_CASE("The next group's hop is received while one is computed") {
  std::atomic<bool> fourth_begun{false};
  run_ranks(2, within(60), [&](thread_communicator& comm) {
    decode_ring ring(comm, {{"hidden", dtype::f32, width, 1}}, {"token", dtype::i32, 1, 1}, 4);
    ring.run([](int, int) { return 1; },
             [&](int group, int step, const hop<>&, hop<>&, hop<>&) {
               if (ring.is_first() && group == 3) fourth_begun = true;
               // The first stage may write group 3 only where group 1 has been taken.
               if (ring.is_last() && group == 0 && step == 0) CHECK(wait_until([&] { return fourth_begun.load(); }));
             },
             [](int, int, const hop<>&) { return false; });
  });
}
