// Jobs in which a rank fails end, with a non-zero status, within their deadlines, and say who failed and why. Each case
// runs failing_program under mpiexec (operation deadline 2 s, abort grace 1 s) and reads what it printed.
#include <doctest/doctest.h>

#include <chrono>
#include <cstdio>
#include <string>

#include <sys/wait.h>

namespace {

struct outcome {
  int status;
  double seconds;
  std::string output;

  bool says(const std::string& text) const { return output.find(text) != std::string::npos; }
};

outcome run_command(const std::string& command) {
  const auto start = std::chrono::steady_clock::now();
  // Should the job hang after all, it is not left behind.
  std::FILE* pipe = ::popen(("timeout -k 5 50 " + command + " 2>&1").c_str(), "r");
  REQUIRE(pipe != nullptr);
  std::string output;
  char text[4096];
  while (const std::size_t length = std::fread(text, 1, sizeof text, pipe)) output.append(text, length);
  const int status = ::pclose(pipe);
  const std::chrono::duration<double> passed = std::chrono::steady_clock::now() - start;
  return {WIFEXITED(status) ? WEXITSTATUS(status) : 128, passed.count(), output};
}

outcome run_ranks(int ranks, const std::string& scenario) {
  return run_command(SHARDKIT_TEST_MPIEXEC " " + std::to_string(ranks) + " " SHARDKIT_TEST_FAILING_PROGRAM " '" +
                     scenario + "'");
}

// The job has failed, in time (the deadlines add up to 3 s; the rest is for a busy machine), and rank 1 is named.
outcome run_failing(const std::string& scenario, const std::string& cause) {
  const outcome result = run_ranks(3, scenario);
  INFO(result.output);
  CHECK(result.status != 0);
  CHECK(result.status != 124);  // of timeout
  CHECK(result.seconds < 25);
  CHECK(result.says("rank 1 failed: " + cause));
  return result;
}

}  // namespace

TEST_CASE("a job in which nothing fails ends well") {
  const outcome result = run_ranks(3, "fine");
  INFO(result.output);
  CHECK(result.status == 0);
  CHECK(result.output.empty());
}

TEST_CASE("calls that are slow, each within its deadline, are no failure") {
  const outcome result = run_ranks(3, "slow, but within the deadline of each call");
  INFO(result.output);
  CHECK(result.status == 0);
  CHECK(result.output.empty());
}

TEST_CASE("a rank that never comes to the start ends the job at the init deadline") {
  const outcome result = run_ranks(3, "never comes to the start");
  INFO(result.output);
  CHECK(result.status != 0);
  CHECK(result.status != 124);
  CHECK(result.seconds < 25);
  CHECK(result.says("has waited for its peers in MPI_Init for longer than the deadline of 2 s"));
}

TEST_CASE("a rank that throws ends the job; its handler and its peers say why") {
  const outcome result = run_failing("throws", "the disk is full");
  INFO(result.output);
  CHECK(result.says("caught on rank 1: the disk is full"));
}

TEST_CASE("an exception that nobody reported still names the rank, and its handler is heard") {
  const outcome result = run_failing("throws unreported", "it left by an exception");
  INFO(result.output);
  CHECK(result.says("caught on rank 1: the disk is full"));
}

TEST_CASE("a job fails although its handlers return zero") {
  run_failing("throws and returns zero", "the disk is full");
}

TEST_CASE("a rank that throws while the others finalise ends the job") {
  const outcome result = run_failing("throws after others finished", "the disk is full");
  INFO(result.output);
  CHECK(result.says("is still in MPI_Finalize"));
}

TEST_CASE("a wrong size on one rank is its usage_error and ends the job") {
  const outcome result = run_failing("wrong size", "all_gather: out has 8 elements and needs 9");
  INFO(result.output);
  CHECK(result.says("caught on rank 1: shardkit: out has 8 elements and needs 9"));
}

TEST_CASE("a rank that never arrives ends the job at the operation deadline, which names the call") {
  const outcome result = run_ranks(3, "never arrives");
  INFO(result.output);
  CHECK(result.status != 0);
  CHECK(result.status != 124);
  CHECK(result.seconds < 25);
  CHECK(result.says("has waited for its peers in all_reduce at "));
  CHECK(result.says("failing_program.cpp:"));
  CHECK(result.says("deadline of 2 s"));
}

TEST_CASE("peers outside a call throw peer_failed at their next one") {
  const outcome result = run_failing("declares itself failed", "out of memory");
  INFO(result.output);
  CHECK(result.says("caught on rank 0: peer_failed, culprit 1"));
  CHECK(result.says("caught on rank 2: peer_failed, culprit 1"));
}

TEST_CASE("a failure reaches communicators that the culprit is not in") {
  const outcome result = run_failing("fails beside a part of the world", "the disk is full");
  INFO(result.output);
  CHECK(result.says("caught on rank 0: peer_failed, culprit 1"));
  CHECK(result.says("of 2 of 'world/0'"));
}

TEST_CASE("a receive that meets a message of another size is a mismatch") {
  CHECK(run_failing("receives less than was sent", "a receive of 5 x f32 from rank 0 met a longer message")
            .says("caught on rank 1: shardkit: a receive of 5"));
  run_failing("receives more than was sent", "a receive of 7 x f32 from rank 0 met a message of 5 elements");
  run_failing("receives less than was sent, in a group", "a receive of 1048575 x f32 from rank 0 met a longer message");
  run_failing("receives another number of pieces",
              "a receive of 8 x f64 from rank 0 met the first of 4 pieces where 2 were due");
}

TEST_CASE("a request that is dropped fails the launch") {
  run_failing("drops a receive", "the request of a recv was dropped before it was complete");
  run_failing("drops a send", "the request of a send was dropped before it was complete");
}

TEST_CASE("waiting for a message that never comes ends at the operation deadline") {
  const outcome result = run_ranks(2, "a receive is never sent");
  INFO(result.output);
  CHECK(result.status != 0);
  CHECK(result.seconds < 25);
  CHECK(result.says("rank 1 of 2 has waited for its peers in recv at "));
}

TEST_CASE("communicators and requests may outlive MPI; calls are then refused") {
  const outcome result = run_ranks(2, "outlives MPI");
  INFO(result.output);
  CHECK(result.status == 0);
  CHECK(result.says("refused: shardkit: the mpi_environment has ended"));
}

TEST_CASE("a program under another library's launcher refuses to run as n jobs of one rank") {
  for (const std::string variable : {"OMPI_COMM_WORLD_SIZE", "WORLD_SIZE"}) {
    const outcome result = run_command("env " + variable + "=3 " SHARDKIT_TEST_FAILING_PROGRAM " fine");
    INFO(result.output);
    CHECK(result.status == 1);
    CHECK(result.says("MPI sees 1 rank, but " + variable + " says that the launcher started 3 processes"));
    CHECK(result.says("Start the program with the mpiexec of its own MPI"));
  }
}
