// What cannot be done is refused and what goes wrong ends the job, on every rank, with the reason. Each case runs
// failing_program on two ranks (operation deadline 2 s, abort grace 1 s) and reads what it printed.
#include <doctest/doctest.h>
#include <support/jobs.hpp>

#include <map>
#include <string>
#include <utility>

namespace {

using shardkit_test::job;
using shardkit_test::outcome;

const std::pair<const char*, const char*> expected[] = {
    {"captures", "caught on rank 0: shardkit: all_reduce over MPI, which works on the host, cannot be captured"},
    {"captures a started call", "works on the host and cannot be captured into a graph"},
    {"calls with another device",
     "caught on rank 1: shardkit: the communicator was made on device 0, and the current device is 1"},
    {"has a stream that stands still",
     "rank 1 failed: all_reduce was not complete at the operation deadline of 2 s: the stream has not come to it"},
    {"never arrives",
     "caught on rank 0: shardkit: all_reduce was not complete at the operation deadline of 2 s: a peer has not made"},
    {"throws", "caught on rank 0: shardkit: rank 1 failed: the disk is full"},
    {"has a device that breaks", "cudaErrorIllegalAddress"},
    {"drops a request", "caught on rank 0: shardkit: rank 1 failed: a request of recv was dropped"},
    {"receives another number of pieces", "met the first of 4 pieces where 1 were due"},
    {"reduces bytes", "does not reduce f8e4m3; convert to bf16 first"},
    {"needs the staging that it forbids", "this all_reduce needs host memory, and staging is forbidden"}};

std::map<std::string, job>& jobs() {
  static std::map<std::string, job> all;
  return all;
}
const bool planned = [] {
  const auto plan = [](const char* scenario) {
    jobs().emplace(scenario,
                   SHARDKIT_TEST_MPIEXEC " 2 " SHARDKIT_TEST_FAILING_PROGRAM " '" + std::string(scenario) + "'");
  };
  plan("fine");
  for (const auto& [scenario, text] : expected) plan(scenario);
  return true;
}();

}  // namespace

TEST_CASE("the program by itself is fine") {
  const outcome& result = jobs().at("fine").result();
  INFO(result.output);
  CHECK(result.status == 0);
}

TEST_CASE("every failure ends the job within the deadlines, and is told") {
  for (const auto& [name, text] : expected) {
    const std::string scenario = name;
    const outcome& result = jobs().at(scenario).result();
    CAPTURE(scenario);
    INFO(result.output);
    CHECK(result.status != 0);
    CHECK(result.status != 124);
    CHECK(result.seconds < 20);
    CHECK(result.says(text));
  }
}

TEST_CASE("of a refused call nothing is captured") {
  for (const char* scenario : {"captures", "captures a started call"}) {
    const outcome& result = jobs().at(scenario).result();
    INFO(result.output);
    CHECK(result.says("the graph has 0 nodes"));
  }
}
