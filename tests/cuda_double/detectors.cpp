// The pipeline with one synchronisation after the other left out: each is found in every run, under every schedule, by
// the order checker or by ThreadSanitizer, and the correct program is found fault with by neither.
#include <doctest/doctest.h>
#include <cuda_double/pipeline.hpp>
#include <support/jobs.hpp>

#include <string>

using namespace cuda_double_test;
using shardkit_test::outcome;
using shardkit_test::run_command;

namespace {

outcome run(const char* program, const std::string& schedule, bug left_out, int runs) {
  const std::string name(bug_names[static_cast<std::size_t>(left_out)]);
  // Addresses as ThreadSanitizer expects them, where the system lets us say so.
  static const std::string fixed_addresses = run_command("setarch -R true").status == 0 ? "setarch -R " : "";
  const std::string environment = "env TSAN_OPTIONS=exitcode=66:atexit_sleep_ms=0 SHARDKIT_DOUBLE_SCHEDULE=" + schedule;
  return run_command(fixed_addresses + environment + " " + program + " " + name + " " + std::to_string(runs));
}

std::string summary(int runs, int with_races) {
  return "reports in " + std::to_string(with_races == 0 ? 0 : runs) + ", races in " + std::to_string(with_races);
}

std::vector<std::string> schedules(int seeds) {
  std::vector<std::string> all = {"eager", "late"};
  for (int seed = 1; seed <= seeds; ++seed) all.push_back("jitter:" + std::to_string(seed));
  return all;
}

}  // namespace

TEST_CASE("300 runs of the correct program under ten schedules: right data, no report") {
  for (const std::string& schedule : schedules(8)) {
    const outcome o = run(SHARDKIT_TEST_PIPELINE, schedule, bug::none, 30);
    CAPTURE(schedule);
    CHECK(o.status == 0);
    CHECK_MESSAGE(o.says("runs 30, wrong data in 0, reports in 0, races in 0"), o.output);
  }
}

TEST_CASE("a missing wait for an event is found in 20 of 20 runs, though the host sleeps where it is missing") {
  for (const bug left_out :
       {bug::upload_not_awaited, bug::upload_not_awaited_hidden, bug::peer_not_awaited, bug::peer_not_awaited_hidden})
    for (const std::string& schedule : schedules(1)) {
      const outcome o = run(SHARDKIT_TEST_PIPELINE, schedule, left_out, 20);
      CAPTURE(schedule);
      CHECK(o.status == 0);
      CHECK_MESSAGE(o.says(summary(20, 20)), o.output);
    }
}

TEST_CASE("a program that does not ask for the reports ends with them, and with a status of its own") {
  const outcome bad = run(SHARDKIT_TEST_PIPELINE, "eager", bug::upload_not_awaited, 0);
  CHECK(bad.status == 76);
  CHECK_MESSAGE(bad.says("race: cudaMemcpyPeerAsync on stream #2 of device 0 reads"), bad.output);
  const outcome good = run(SHARDKIT_TEST_PIPELINE, "eager", bug::none, 0);
  CHECK(good.status == 0);
  CHECK_MESSAGE(good.output.empty(), good.output);
}

#ifdef SHARDKIT_TEST_PIPELINE_WATCHED

TEST_CASE("ThreadSanitizer finds nothing in the correct program under ten schedules") {
  for (const std::string& schedule : schedules(8)) {
    const outcome o = run(SHARDKIT_TEST_PIPELINE_WATCHED, schedule, bug::none, 6);
    CAPTURE(schedule);
    CHECK_MESSAGE(o.status == 0, o.output);
    CHECK_MESSAGE(o.says("runs 6, wrong data in 0, reports in 0, races in 0"), o.output);
  }
}

TEST_CASE("ThreadSanitizer finds host memory used too early, though the host sleeps instead of synchronising") {
  for (const bug left_out :
       {bug::read_too_early, bug::read_too_early_hidden, bug::reused_too_early, bug::reused_too_early_hidden,
        bug::result_taken_too_early, bug::result_taken_too_early_hidden})
    for (const std::string& schedule : schedules(1)) {
      const outcome o = run(SHARDKIT_TEST_PIPELINE_WATCHED, schedule, left_out, 1);
      CAPTURE(schedule);
      CHECK(o.status == 66);
      CHECK_MESSAGE(o.says("data race"), o.output);
      CHECK_MESSAGE(o.says(summary(1, 0)), o.output);
    }
}

#endif
