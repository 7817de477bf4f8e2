// A real program, started several times with what torchrun and srun would set.
#include <doctest/doctest.h>
#include <shardkit/backends/detail/tcp_socket.hpp>
#include "started.hpp"

#include <string>
#include <vector>

namespace {

/// What torchrun sets for each of its processes. A store of its own listens on MASTER_PORT, as torchrun's does.
struct torchrun {
  shardkit::detail::tcp_socket store = shardkit::detail::tcp_listen("127.0.0.1", 0, 1);
  std::string id = fresh_id();

  std::string variables(int rank, int size) const {
    return "env -u SHARDKIT_PORT RANK=" + std::to_string(rank) + " WORLD_SIZE=" + std::to_string(size) +
           " LOCAL_RANK=" + std::to_string(rank) + " LOCAL_WORLD_SIZE=" + std::to_string(size) +
           " MASTER_ADDR=127.0.0.1 MASTER_PORT=" + std::to_string(shardkit::detail::port_of(store)) +
           " TORCHELASTIC_RUN_ID=" + id + " TORCHELASTIC_RESTART_COUNT=0 ";
  }
  std::vector<outcome> run(int size, const std::string& arguments) const {
    std::vector<std::string> commands;
    for (int rank = 0; rank < size; ++rank) commands.push_back(variables(rank, size) + program + " " + arguments);
    return together(commands);
  }
};

}  // namespace

TEST_CASE("a program under torchrun's variables finds its peers beside torchrun's own store") {
  const torchrun launch;
  for (int size : {1, 3}) {
    const auto ranks = launch.run(size, "sum");
    for (int rank = 0; rank < size; ++rank) {
      const outcome& one = ranks[static_cast<std::size_t>(rank)];
      CAPTURE(one.output);
      CHECK(one.status == 0);
      CHECK(one.says("rank " + std::to_string(rank) + " of " + std::to_string(size) + ": sum " +
                     std::to_string(size * (size + 1) / 2)));
      CHECK(one.says("by torchrun (RANK=" + std::to_string(rank)));
    }
  }
}

TEST_CASE("a program under srun's variables finds its peers at the first host of the list") {
  const std::string job = fresh_id();
  std::vector<std::string> commands;
  for (int rank = 0; rank < 3; ++rank) commands.push_back(step(rank, 3, "127.0.0.[1-2]", job) + program + " sum");
  for (const outcome& one : together(commands)) {
    CAPTURE(one.output);
    CHECK(one.status == 0);
    CHECK(one.says("of 3: sum 6"));
    CHECK(one.says("by srun"));
  }
}

TEST_CASE("a program without a launcher is one rank, and one with half a launcher is refused") {
  const auto alone = run_command(program);
  CAPTURE(alone.output);
  CHECK(alone.status == 0);
  CHECK(alone.says("rank 0 of 1: sum 1 (rank 0 of 1, local rank 0 of 1, no launcher)"));
  const auto half = run_command("env RANK=1 " + program);
  CHECK(half.status == 3);
  CHECK(half.says("RANK=1 is set without WORLD_SIZE"));
  const auto nowhere = run_command("env RANK=1 WORLD_SIZE=2 " + program);
  CHECK(nowhere.status == 3);
  CHECK(nowhere.says("SHARDKIT_PORT"));
}

TEST_CASE("whatever becomes of a process, the others end with its name and a status that is not zero") {
  const struct {
    const char *what, *deadline;
    int status;
    const char* reason;
  } table[] = {{"throws", "20", 3, "rank 1 failed: out of luck"},
               {"vanishes", "20", 0, "rank 1 failed: its connection closed"},
               {"killed", "20", 128 + 9, "rank 1 failed: its connection closed"},
               {"late", "1", 3, "rank 1 did not arrive in barrier()"}};
  for (const auto& row : table) {
    CAPTURE(row.what);
    const torchrun launch;
    const auto ranks = launch.run(3, std::string(row.what) + " " + row.deadline);
    CHECK(ranks[1].status == row.status);
    for (const std::size_t rank : {0u, 2u}) {
      CAPTURE(ranks[rank].output);
      CHECK(ranks[rank].status == 3);
      CHECK(ranks[rank].says(row.reason));
      CHECK(ranks[rank].seconds < 10);
    }
  }
}

TEST_CASE("processes whose last calls differ do not end as if nothing were") {
  const torchrun launch;
  int reports = 0;
  for (const outcome& one : launch.run(2, "differs")) {
    CAPTURE(one.output);
    CHECK((one.status == 0 || one.status == 3));
    reports += one.status == 3 && one.says("ranks make different calls: rank ") ? 1 : 0;
  }
  CHECK(reports >= 1);
}

TEST_CASE("a process that never comes is named by those that have come") {
  const torchrun launch;
  std::vector<std::string> commands;
  for (const int rank : {0, 2}) commands.push_back(launch.variables(rank, 3) + program + " sum 20 1");
  for (const outcome& one : together(commands)) {
    CAPTURE(one.output);
    CHECK(one.status == 3);
    CHECK(one.says("rank 1 of 3 did not come within the init deadline of 1"));
  }
}

TEST_CASE("two launches at once on one host do not mix") {
  const torchrun one;
  const std::string other_id = fresh_id();
  std::vector<std::string> commands;
  for (int rank = 0; rank < 2; ++rank) {
    commands.push_back(one.variables(rank, 2) + program + " sum");
    // The same ports, another run.
    std::string variables = one.variables(rank, 2);
    variables.replace(variables.find(one.id), one.id.size(), other_id);
    commands.push_back(variables + program + " sum");
  }
  for (const outcome& rank : together(commands)) {
    CAPTURE(rank.output);
    CHECK(rank.status == 0);
    CHECK(rank.says("of 2: sum 3"));
  }
}
