// What the errors of functions over communicators say: who, on which communicator, in which operation, from which line,
// and what to do. Those of the verbs are in failure.cpp, those of control lanes in control.cpp.
#include "on_threads.hpp"

#include "error_context.hpp"

#include <shardkit/comm/mesh.hpp>
#include <shardkit/comm/overlay.hpp>
#include <shardkit/comm/subset.hpp>

#include <string>
#include <vector>

using shardkit::mesh_axis;

TEST_CASE("an overlay whose ranks decide differently says who this is, and from which line") {
  constexpr int line = __LINE__ + 6;
  const auto result = launch(3, [&](auto& world, auto&) {
    const bool eager = world.rank() == 2;
    const auto chooses = [eager](shardkit::reduction, shardkit::dtype, std::size_t bytes) {
      return eager && bytes > 1000;
    };
    (void)with_overlay(std::move(world), 0, chooses);
  });
  for (int rank = 0; rank < 3; ++rank) {
    check_context(result[rank], rank, 3, "world", "with_overlay", line);
    CHECK(result[rank].says("may not look at anything that differs between ranks"));
  }
}

TEST_CASE("a group says where it was handed a communicator that was moved from") {
  int line = 0;
  const auto result = launch(1, [&](auto& comm, auto&) {
    auto other = comm.split(0), taken = std::move(other);
    comm.group([&](auto& g) {
      line = __LINE__ + 1;
      g.with(other).barrier();
    });
  });
  CHECK(result.caller.how == ending::usage);
  CHECK(result.caller.says("with at " + std::string(__FILE__) + ":" + std::to_string(line)));
  CHECK(result.caller.says("use the one that it was moved to"));
  CHECK(result.caller.context.rank == 0);
  CHECK(result.caller.context.communicator == "world");
  CHECK(result.caller.context.operation == "group");
}

TEST_CASE("a list that makes no subset is refused with the remedy, from the user's line") {
  struct wrong {
    std::vector<int> ranks;
    const char* message;
  };
  for (const wrong& one : {wrong{{}, "the list of ranks is empty; name at least one"},
                           wrong{{0, 3}, "rank 3 is not a rank of this communicator; its ranks are 0 to 2"},
                           wrong{{-1}, "rank -1 is not a rank of this communicator; its ranks are 0 to 2"},
                           wrong{{1, 0, 1}, "rank 1 is listed twice; name each once"}}) {
    constexpr int line = __LINE__ + 1;
    const auto result = launch(3, [&](auto& comm, auto&) { (void)shardkit::subset(comm, one.ranks); });
    for (int rank = 0; rank < 3; ++rank) {
      CHECK(result[rank].how == ending::usage);
      check_context(result[rank], rank, 3, "world", "subset", line);
      CHECK(result[rank].says(one.message));
    }
  }
}

TEST_CASE("ranks that pass different axes are all told so, and the communicator goes on") {
  using axes = std::vector<mesh_axis>;
  const axes most{{"data", 2}, {"tensor", 3}};
  const std::string long_name(300, 'x');
  for (const axes& odd : {axes{{"data", 3}, {"tensor", 2}}, axes{{"tensor", 3}, {"data", 2}},
                          axes{{"data", 2}, {"pipeline", 3}}, axes{{"data", 6}}, axes{{long_name, 6}}})
    for (const int who : {0, 4}) {
      CAPTURE(who);
      const auto result = launch(6, [&](auto& comm, auto&) {
        constexpr int line = __LINE__ + 1;
        const auto build = [&] { shardkit::mesh grid(comm, comm.rank() == who ? odd : most); };
        const ending got = ending_of(build);
        CHECK(got.how == ending::mismatch);
        check_context(got, comm.rank(), 6, "world", "mesh", line);
        CHECK(got.says("rank " + std::to_string(who == 0 ? 1 : 4) + " makes a mesh of "));
        CHECK(got.says("data 2 x tensor 3"));
        CHECK(got.says(odd.size() == 1 ? odd[0].name.substr(0, 200)
                                       : odd[0].name + " " + std::to_string(odd[0].size) + " x " + odd[1].name));
        CHECK(got.says("pass the same axes in the same order on every rank"));
        shardkit::mesh grid(comm, most);
        CHECK(grid["tensor"].size() == 3);
      });
      CHECK(result.thrown == nullptr);
    }
}

TEST_CASE("an axis that a mesh does not have is refused with those that it has") {
  shardkit::run_ranks(4, [](thread_communicator& comm) {
    auto world = comm.split(0, 0, "replica");
    shardkit::mesh grid(world, {{"data", 2}, {"tensor", 2}});
    const int line = __LINE__ + 1;
    const ending asked = ending_of([&] { (void)grid["pipeline"]; });
    const ending placed = ending_of([&] { (void)grid.coordinate(std::string("pipeline")); });
    check_context(asked, comm.rank(), 4, "replica", "mesh", line);
    check_context(placed, comm.rank(), 4, "replica", "mesh", line + 1);
    for (const ending& got : {asked, placed}) {
      CHECK(got.how == ending::usage);
      CHECK(got.says("no axis 'pipeline'; this mesh has data 2 x tensor 2"));
    }
  });
}
