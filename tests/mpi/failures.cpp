// Jobs in which a rank fails end, with a non-zero status, within their deadlines, and say who failed and why. Each case
// runs failing_program under mpiexec (operation deadline 2 s, abort grace 1 s) and reads what it printed.
#include <doctest/doctest.h>
#include <shardkit/backends/detail/mpi_api.hpp>
#include <support/jobs.hpp>

#include <cstddef>
#include <map>
#include <string>

namespace {

using shardkit_test::job;
using shardkit_test::outcome;

std::string command(int ranks, const std::string& scenario) {
  return SHARDKIT_TEST_MPIEXEC " " + std::to_string(ranks) + " " SHARDKIT_TEST_FAILING_PROGRAM " '" + scenario + "'";
}
// The same with nodes of so many ranks, which are only taken for such; where it counts that each node has a process
// manager of its own, MPICH's starts several on this machine.
std::string command_apart(int in_node, const std::string& scenario) {
  return "env SHARDKIT_TEST_NODE=" + std::to_string(in_node) + " " + command(3, scenario);
}
std::string command_on_nodes(int in_node, const std::string& scenario) {
#ifdef MPICH_VERSION
  return SHARDKIT_TEST_MPIEXEC " 3 -launcher fork -hosts 127.0.0.1,127.0.0.2,127.0.0.3 -ppn " +
         std::to_string(in_node) + " " SHARDKIT_TEST_FAILING_PROGRAM " '" + scenario + "'";
#else
  return command_apart(in_node, scenario);
#endif
}
std::string on_nodes(int in_node, const std::string& scenario) {
  return "on nodes of " + std::to_string(in_node) + ": " + scenario;
}

// All jobs, so that several can run at once; a case asks for its own.
std::map<std::string, job>& jobs() {
  static std::map<std::string, job> all;
  return all;
}
const bool planned = [] {
  for (const char* scenario : {"fine",
                               "slow, but within the deadline of each call",
                               "never comes to the start",
                               "throws",
                               "throws unreported",
                               "throws and returns zero",
                               "throws after others finished",
                               "wrong size",
                               "MPI refuses a call",
                               "never arrives",
                               "declares itself failed",
                               "fails beside a part of the world",
                               "receives less than was sent",
                               "receives more than was sent",
                               "receives less than was sent, in a group",
                               "receives another number of pieces",
                               "drops a receive",
                               "drops a send",
                               "drops a started sum",
                               "drops a started sum that every rank has started",
                               "throws beside a receive",
                               "throws beside a receive, unreported",
                               "throws beside a receive, and says so itself",
                               "swallows what it throws beside a receive",
                               "throws beside a send",
                               "an exception ends a communicator with posts that nobody takes",
                               "throws while a sum is waited for",
                               "throws while a sum is tested",
                               "a started sum is never joined",
                               "a group of two communicators is never joined",
                               "exits with 0",
                               "exits with 1",
                               "ends by _exit(0)",
                               "ends by _exit(0) while nobody waits",
                               "ends by _exit(0) while the others finalise",
                               "aborts",
                               "gets SIGTERM",
                               "gets SIGKILL",
                               "gets SIGSTOP",
                               "uses two communicators in opposite order"})
    jobs().emplace(scenario, command(3, scenario));
  for (const char* scenario :
       {"a receive is never sent", "outlives MPI", "makes two environments", "options differ", "MPI refuses to start"})
    jobs().emplace(scenario, command(2, scenario));
  for (const int in_node : {1, 2}) {
    for (const char* scenario :
         {"fine", "throws", "throws beside a receive", "swallows what it throws beside a receive",
          "throws after others finished", "declares itself failed", "ends by _exit(0)",
          "ends by _exit(0) while nobody waits", "gets SIGKILL", "gets SIGSTOP", "never arrives"})
      jobs().emplace(on_nodes(in_node, scenario), command_on_nodes(in_node, scenario));
  }
  jobs().emplace(on_nodes(2, "cannot reach other nodes"), command_apart(2, "cannot reach other nodes"));
  for (const char* scenario : {"cannot reach other nodes, and need not", "meets strangers"})
    jobs().emplace(on_nodes(1, scenario), command_apart(1, scenario));
  return true;
}();

const outcome& run_ranks(const std::string& scenario) { return jobs().at(scenario).result(); }

// Seconds until the job is to have failed, once it is under way: the grace for the peers of a failed rank, the deadline
// of a call, and before what it says a look at where the others are.
constexpr double grace = 1, deadline = 2 + 0.5;

// The job has failed, in time.
const outcome& run_ending(const std::string& scenario, double seconds) {
  constexpr double start_on_a_busy_machine = 5;
  const outcome& result = run_ranks(scenario);
  INFO(scenario);
  INFO(result.output);
  CHECK(result.status != 0);
  CHECK(result.status != 124);  // of timeout
  CHECK(result.seconds < seconds + start_on_a_busy_machine);
  return result;
}
// The same, and rank 1 is named.
const outcome& run_failing(const std::string& scenario, const std::string& cause, double seconds = grace) {
  const outcome& result = run_ending(scenario, seconds);
  INFO(scenario);
  INFO(result.output);
  CHECK(result.says("rank 1 failed: " + cause));
  return result;
}

// The launcher may be faster than the watchdogs; MPICH's does not say which rank it was.
bool names_the_lost(const outcome& result) {
  return result.says("rank 1 failed: its process has ended without leaving MPI") ||
         result.says("process rank 1 with PID") || result.says("BAD TERMINATION OF ONE OF YOUR APPLICATION PROCESSES");
}

}  // namespace

TEST_CASE("a job in which nothing fails ends well") {
  const outcome& result = run_ranks("fine");
  INFO(result.output);
  CHECK(result.status == 0);
  CHECK(result.output.empty());
}

TEST_CASE("calls that are slow, each within its deadline, are no failure") {
  const outcome& result = run_ranks("slow, but within the deadline of each call");
  INFO(result.output);
  CHECK(result.status == 0);
  CHECK(result.output.empty());
}

TEST_CASE("a rank that never comes to the start ends the job at the init deadline") {
  const outcome& result = run_ending("never comes to the start", 2);
  INFO(result.output);
  CHECK(result.says("has waited for its peers in MPI_Init for longer than the deadline of 2 s"));
}

TEST_CASE("a rank that throws ends the job; its handler and its peers say why") {
  const outcome& result = run_failing("throws", "the disk is full");
  INFO(result.output);
  CHECK(result.says("caught on rank 1: the disk is full"));
}

TEST_CASE("an exception that nobody reported still names the rank, and its handler is heard") {
  const outcome& result = run_failing("throws unreported", "it left by an exception");
  INFO(result.output);
  CHECK(result.says("caught on rank 1: the disk is full"));
}

TEST_CASE("a job fails although its handlers return zero") {
  run_failing("throws and returns zero", "the disk is full");
}

TEST_CASE("a rank that throws while the others finalise ends the job") {
  const outcome& result = run_failing("throws after others finished", "the disk is full", 0.3 + grace);
  INFO(result.output);
  CHECK(result.says("is still in MPI_Finalize"));
}

TEST_CASE("a wrong size on one rank is its usage_error and ends the job") {
  const outcome& result = run_failing("wrong size", "all_gather: out has 8 elements and needs 9");
  INFO(result.output);
  CHECK(result.says("caught on rank 1: shardkit: out has 8 elements and needs 9"));
}

TEST_CASE("what MPI reports of a call is thrown with the call, and ends the job") {
  const outcome& result = run_failing("MPI refuses a call", "MPI_Allreduce: ");
  INFO(result.output);
  CHECK(result.says("caught on rank 1: shardkit: MPI_Allreduce: "));
  CHECK(result.says("[rank 1 of 3 of 'world', all_reduce(1 x f64, sum), call 2, at "));
}

TEST_CASE("a rank that never arrives ends the job at the operation deadline, which names the call") {
  const outcome& result = run_ending("never arrives", deadline);
  INFO(result.output);
  CHECK(result.says("has waited for its peers in all_reduce at "));
  CHECK(result.says("failing_program.cpp:"));
  CHECK(result.says("deadline of 2 s; rank 1 is in no call; it ends the job"));
}

TEST_CASE("peers outside a call throw peer_failed at their next one") {
  const outcome& result = run_failing("declares itself failed", "out of memory");
  INFO(result.output);
  CHECK(result.says("caught on rank 0: peer_failed, culprit 1"));
  CHECK(result.says("caught on rank 2: peer_failed, culprit 1"));
}

TEST_CASE("a failure reaches communicators that the culprit is not in") {
  const outcome& result = run_failing("fails beside a part of the world", "the disk is full");
  INFO(result.output);
  CHECK(result.says("caught on rank 0: peer_failed, culprit 1"));
  CHECK(result.says("of 2 of 'world/0'"));
}

TEST_CASE("a receive that meets a message of another size is a mismatch") {
  CHECK(run_failing("receives less than was sent", "a receive of 5 x f32 from rank 0 met a longer message")
            .says("caught on rank 1: shardkit: a receive of 5"));
  run_failing("receives more than was sent", "a receive of 7 x f32 from rank 0 met a message of 5 elements");
  run_failing("receives less than was sent, in a group", "a receive of 1048575 x f32 from rank 0 met a longer message");
  // From MPI 4 on no message travels in pieces.
  run_failing("receives another number of pieces",
              SHARDKIT_MPI_LARGE_COUNTS
                  ? "a receive of 16 x f64 from rank 0 met a longer message"
                  : "a receive of 8 x f64 from rank 0 met the first of 4 pieces where 2 were due");
}

TEST_CASE("a request that is dropped fails the launch") {
  run_failing("drops a receive", "a request of recv was dropped before it completed");
  run_failing("drops a send", "a request of send was dropped before it completed");
  run_failing("drops a started sum", "a request of all_reduce was dropped before it completed");
  run_failing("drops a started sum that every rank has started",
              "a request of all_reduce was dropped before it completed");
}

TEST_CASE("where an exception drops a request, the exception is the cause, also to those who hear of it before") {
  for (const std::string& scenario : {std::string("throws beside a receive"), on_nodes(1, "throws beside a receive"),
                                      on_nodes(2, "throws beside a receive")}) {
    const outcome& result = run_failing(scenario, "the disk is full");
    INFO(scenario);
    INFO(result.output);
    for (const char* peer : {"0", "2"})
      CHECK(result.says("caught on rank " + std::string(peer) + ": peer_failed, culprit 1: shardkit: "));
    CHECK(!result.says("dropped"));
  }
  CHECK(!run_failing("throws beside a receive, unreported", "it left by an exception").says("dropped"));
  CHECK(!run_failing("throws beside a receive, and says so itself", "noted: the disk is full").says("dropped"));
}

TEST_CASE("where an exception drops a request and never gets to a handler that tells it, the drop is the cause") {
  for (const std::string& scenario : {std::string("swallows what it throws beside a receive"),
                                      on_nodes(1, "swallows what it throws beside a receive")}) {
    const outcome& result = run_failing(scenario, "a request of recv was dropped before it completed, by an exception");
    INFO(scenario);
    INFO(result.output);
    for (const char* rank : {"0", "1", "2"})
      CHECK(result.says("caught on rank " + std::string(rank) + ": peer_failed, culprit 1: "));
    CHECK(!result.says("it left by an exception"));  // that of its next call, not of the drop
  }
  // MPI reads what is sent until the peer has it.
  run_failing("throws beside a send", "a request of send was dropped before it completed, by an exception");
}

TEST_CASE("a rank that throws while its peers wait for a started collective ends the job") {
  run_failing("throws while a sum is waited for", "the disk is full");
}

TEST_CASE("the test of a started collective throws once a peer has failed") {
  const outcome& result = run_failing("throws while a sum is tested", "the disk is full");
  INFO(result.output);
  CHECK(result.says("the test on rank 0 says that rank 1 failed"));
  CHECK(result.says("the test on rank 2 says that rank 1 failed"));
}

TEST_CASE("waiting for a started collective that a rank never joins ends at the operation deadline") {
  const outcome& result = run_ending("a started sum is never joined", deadline);
  INFO(result.output);
  CHECK(result.says("has waited for its peers in all_reduce at "));
  CHECK(result.says("deadline of 2 s"));
}

TEST_CASE("waiting for requests of several communicators throws at the operation deadline and ends the job") {
  const outcome& result = run_ending("a group of two communicators is never joined", deadline + grace);
  INFO(result.output);
  CHECK(result.says("was not complete at the operation deadline of 2 s: a peer has not made its part of it"));
}

TEST_CASE("waiting for a message that never comes ends at the operation deadline") {
  const outcome& result = run_ending("a receive is never sent", deadline);
  INFO(result.output);
  // Rank 0 waits in MPI_Finalize meanwhile, and either may be the first to say so.
  CHECK((result.says("rank 1 of 2 has waited for its peers in recv at ") || result.says("rank 1 is in recv at ")));
}

TEST_CASE("communicators and requests may outlive MPI; calls are then refused") {
  const outcome& result = run_ranks("outlives MPI");
  INFO(result.output);
  CHECK(result.status == 0);
  CHECK(result.says("refused: shardkit: the mpi_environment has ended"));
}

TEST_CASE("a program under another library's launcher refuses to run as n jobs of one rank") {
  for (const std::string variable : {"OMPI_COMM_WORLD_SIZE", "WORLD_SIZE"}) {
    const outcome result = shardkit_test::run_command("env " + variable + "=3 " SHARDKIT_TEST_FAILING_PROGRAM " fine");
    INFO(result.output);
    CHECK(result.status == 1);
    CHECK(result.says("MPI sees 1 rank, but " + variable + " says that the launcher started 3 processes"));
    CHECK(result.says("Start the program with the mpiexec of its own MPI"));
  }
}

TEST_CASE("a rank that calls exit ends the job, whatever its status") {
  run_failing("exits with 0", "it called exit with its mpi_environment in use");
  run_failing("exits with 1", "it called exit with its mpi_environment in use");
}

TEST_CASE("a rank that is gone without a word ends the job, also under launchers that take it for success") {
  // Open MPI's launcher may be faster than the watchdogs; it names the rank itself.
  for (const char* scenario :
       {"ends by _exit(0)", "ends by _exit(0) while the others finalise", "ends by _exit(0) while nobody waits"}) {
    const outcome& result = run_ending(scenario, 0.5 + grace);
    INFO(result.output);
    CHECK(
        (result.says("rank 1 failed: its process has ended without leaving MPI") || result.says("exiting improperly")));
  }
}

TEST_CASE("a rank that a signal ends makes the job fail at once") {
  for (const char* scenario : {"aborts", "gets SIGTERM", "gets SIGKILL"}) {
    const outcome& result = run_ending(scenario, 0.2 + grace);
    INFO(result.output);
    CHECK(names_the_lost(result));
  }
}

TEST_CASE("a rank that is stopped ends the job at the operation deadline, which names it") {
  const outcome& result = run_ending("gets SIGSTOP", deadline);
  INFO(result.output);
  CHECK(result.says("; rank 1 gives no sign of life; it ends the job"));
}

TEST_CASE("two communicators in opposite order end at the operation deadline, which names both calls") {
  const outcome& result = run_ending("uses two communicators in opposite order", deadline);
  INFO(result.output);
  CHECK((result.says("; rank 1 is in barrier at ") || result.says("has waited for its peers in barrier at ")));
}

TEST_CASE("a communicator that an exception ends waits for nothing: the peers are told at once") {
  const outcome& result =
      run_failing("an exception ends a communicator with posts that nobody takes", "the disk is full", 0.3);
  INFO(result.output);
  CHECK(result.says("caught on rank 0: peer_failed, culprit 1"));
  CHECK(result.says("caught on rank 2: peer_failed, culprit 1"));
}

TEST_CASE("options that differ are refused on every rank") {
  const outcome& result = run_ending("options differ", 0);
  INFO(result.output);
  CHECK(result.says("mpi_options: piece_bytes is 1073741824 on rank 0, but 128 on rank 1; it has to be the same"));
  CHECK_FALSE(result.says("ends the job"));
}

TEST_CASE("a start that fails before the ranks know each other is thrown, and ends the job") {
  const outcome& result = run_ending("MPI refuses to start", grace);
  INFO(result.output);
  CHECK(result.says("caught on rank -1: shardkit: MPI_Comm_dup: "));
  CHECK(result.says("ends the job, because rank -1 failed: MPI_Comm_dup: "));
}

TEST_CASE("what happens on one node is known on the others") {
  for (const int in_node : {1, 2}) {
    const outcome& fine = run_ranks(on_nodes(in_node, "fine"));
    INFO(fine.output);
    CHECK(fine.status == 0);
    CHECK(fine.output.empty());
    run_failing(on_nodes(in_node, "throws"), "the disk is full");
    const outcome& late =
        run_failing(on_nodes(in_node, "throws after others finished"), "the disk is full", 0.3 + grace);
    INFO(late.output);
    CHECK(late.says("is still in MPI_Finalize"));
    const outcome& declared = run_failing(on_nodes(in_node, "declares itself failed"), "out of memory", 0.3);
    INFO(declared.output);
    CHECK(declared.says("caught on rank 0: peer_failed, culprit 1"));
    CHECK(declared.says("caught on rank 2: peer_failed, culprit 1"));
  }
}

TEST_CASE("a process that is lost on one node is named on the others") {
  for (const int in_node : {1, 2}) {
    const outcome& in_call = run_ending(on_nodes(in_node, "ends by _exit(0)"), 0.2 + grace);
    INFO(in_call.output);
    CHECK((in_call.says("rank 1 failed: its process has ended without leaving MPI") ||
           in_call.says("exiting improperly")));
    const outcome& outside = run_ending(on_nodes(in_node, "ends by _exit(0) while nobody waits"), 0.5);
    INFO(outside.output);
    for (const char* peer : {"0", "2"})
      CHECK((outside.says(std::string("caught on rank ") + peer +
                          ": peer_failed, culprit 1: shardkit: rank 1 failed: "
                          "its process has ended without leaving MPI") ||
             outside.says("exiting improperly")));
    CHECK(names_the_lost(run_ending(on_nodes(in_node, "gets SIGKILL"), 0.2 + grace)));
  }
}

TEST_CASE("at the operation deadline nodes tell each other which ranks are elsewhere, and who is silent") {
  for (const int in_node : {1, 2}) {
    const outcome& stopped = run_ending(on_nodes(in_node, "gets SIGSTOP"), deadline + 1);
    INFO(stopped.output);
    CHECK(stopped.says("deadline of 2 s; rank 1 gives no sign of life; it ends the job"));
    const outcome& late = run_ending(on_nodes(in_node, "never arrives"), deadline + 1);
    INFO(late.output);
    CHECK(late.says("deadline of 2 s; rank 1 is in no call; it ends the job"));
  }
}

TEST_CASE("nodes that cannot reach each other are refused on every rank, with the remedy, unless that is wanted") {
  const outcome& result = run_ending(on_nodes(2, "cannot reach other nodes"), 1);
  INFO(result.output);
  std::size_t heard = 0;
  for (std::size_t at = 0; (at = result.output.find("caught on rank", at)) != std::string::npos; ++at) ++heard;
  CHECK(heard == 3);
  CHECK(result.says("from the nodes of these ranks: 1; "));
  CHECK(result.says("here: No route to host"));
  CHECK(result.says("or do without: \"none\""));
  const outcome& without = run_ranks(on_nodes(1, "cannot reach other nodes, and need not"));
  INFO(without.output);
  CHECK(without.status == 0);
}

TEST_CASE("strangers who connect where nodes meet are dropped, silent ones too") {
  const outcome& result = run_ranks(on_nodes(1, "meets strangers"));
  INFO(result.output);
  CHECK(result.status == 0);
  CHECK(result.output.empty());
}

TEST_CASE("there is one environment at a time, and none after it has ended") {
  const outcome& result = run_ranks("makes two environments");
  INFO(result.output);
  CHECK(result.status == 0);
  CHECK(result.says("again: shardkit: MPI was finalised before; a process can use it only once"));
}
