#include "stage_cases.hpp"

#include <shardkit/backends/self.hpp>
#include <shardkit/comm/any_communicator.hpp>

#include <atomic>
#include <string>

using namespace pipeline_test;
using shardkit::run_ranks;
using shardkit::thread_communicator;

TEST_CASE("forward equals a serial run for every batch size, microbatch count and stage count") {
  for (int stages = 1; stages <= 6; ++stages)
    run_ranks(stages, within(60), [&](thread_communicator& comm) { forward_over_all_sizes(comm, 20, 9); });
}

TEST_CASE("forward runs over an erased communicator, and over one rank by itself") {
  run_ranks(3, within(60), [](thread_communicator& comm) {
    auto erased = shardkit::erase(std::move(comm));
    forward_over_all_sizes(erased, 5, 4);
  });
  shardkit::self_communicator alone{shardkit::self_backend()};
  forward_over_all_sizes(alone, 5, 4);
}

TEST_CASE("Microbatches may differ in size and be empty") {
  for (int stages = 1; stages <= 5; ++stages)
    run_ranks(stages, within(60), [](thread_communicator& comm) { forward_over_uneven_microbatches(comm); });
}

TEST_CASE("The blocks serve a loop of one's own") {
  for (int stages = 1; stages <= 5; ++stages)
    run_ranks(stages, within(60), [](thread_communicator& comm) { blocks_in_a_loop_of_ones_own(comm); });
}

TEST_CASE("A result is delivered to the last stage, to the first, or to all") {
  for (int stages = 1; stages <= 5; ++stages)
    run_ranks(stages, within(60), [](thread_communicator& comm) { deliveries_reach_whom_they_name(comm); });
}

TEST_CASE("The next microbatch is received while one is computed") {
  std::atomic<bool> all_sent{false};
  run_ranks(2, within(60), [&](thread_communicator& comm) {
    stage pipeline(comm, {{"hidden", dtype::f32, width, 4}});
    pipeline.forward(partition::balanced(8, 2), [&](const microbatch& mb, const hop<>&, hop<>&) {
      // Stage 0 returns only when microbatch 1 has been taken, too.
      if (pipeline.is_last() && mb.index == 0) CHECK(wait_until([&] { return all_sent.load(); }));
    });
    if (pipeline.is_first()) all_sent = true;
  });
}

TEST_CASE("forward returns when everything has been sent, not before") {
  std::atomic<bool> returned{false};
  run_ranks(2, within(60), [&](thread_communicator& comm) {
    with_stage(comm, {{"hidden", dtype::f32, width, 4}}, [&](auto& pipeline) {
      pipeline.forward(partition::balanced(16, 4), [&](const microbatch& mb, const hop<>&, hop<>&) {
        // By now microbatch 1 at most has been taken, of 4.
        if (pipeline.is_last() && mb.index == 0) CHECK(!wait_until([&] { return returned.load(); }, 0.05));
      });
      if (pipeline.is_first()) returned = true;
    });
  });
}

TEST_CASE("A pipeline without ports only keeps the order") {
  std::atomic<int> furthest{-1};
  run_ranks(3, within(60), [&](thread_communicator& comm) {
    stage pipeline(comm, {});
    pipeline.forward(partition::balanced(100, 20), [&](const microbatch& mb, const hop<>&, hop<>&) {
      if (pipeline.is_first()) furthest = mb.index;
      CHECK(furthest >= mb.index);
    });
  });
}
