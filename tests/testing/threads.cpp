// The main of thread ranks, seen from outside: what a run of sample.cpp prints and returns.
#include "runs.hpp"

#include <doctest/doctest.h>

#include <string>

using namespace sample_runs;

namespace {

const std::string threads = SHARDKIT_TEST_SAMPLE_THREADS " --ranks=3 ";

job t_passing(threads + "-ts=passing");
job t_failing(threads + "-ts=failing");
job t_requirement(threads + "-tc='a requirement before a barrier' --case-deadline=20");
job t_sleeps(threads + "-tc='a rank sleeps,ranks meet' --case-deadline=1");
job t_total(threads + "-tc='a rank sleeps' --deadline=1");
job t_needs(threads + "-ts=demanding");
job t_allowed(threads + "-ts=demanding --allow-fewer-ranks");
job t_enough(SHARDKIT_TEST_SAMPLE_THREADS " --ranks=7 -ts=demanding");
job t_own_deadline(threads + "-tc='a rank sleeps for longer than it may' --case-deadline=0.5");
job t_slow(threads + "-ts=slow --case-deadline=0.5");
job t_behind(threads + "-tc='a rank stays behind' --case-deadline=1");
job t_crash(threads + "-tc='a rank crashes'");
job t_nothing(threads + "-tc='no such case'");
job t_list(threads + "--list-test-cases");
job t_help(threads + "--help");
job t_junit(threads + "-ts=failing -r=junit --out=" + folder + "/threads.xml");
job t_junit_hangs(threads + "-tc='a rank sleeps,a check fails' --case-deadline=1 -r=junit --out=" + folder +
                  "/threads_hang.xml");
job t_junit_shown(threads + "-tc='a rank sleeps' --case-deadline=1 -r=junit 2>/dev/null");
job t_junit_crashes(threads + "-tc='a rank crashes' -r=junit --out=" + folder + "/threads_crash.xml");
job t_no_run(threads + "--no-run");
job t_foreign(SHARDKIT_TEST_SAMPLE_FOREIGN);
job t_launcher("env WORLD_SIZE=3 " + threads);
job t_option(threads + "--case-deadline=soon");

}  // namespace

TEST_CASE("thread ranks: a run that passes says so") {
  const outcome& result = t_passing.result();
  INFO(result.output);
  CHECK(result.status == 0);
  CHECK(result.says("3 passed | 0 failed"));
  CHECK(!result.says("seen by no one"));
}

TEST_CASE("thread ranks: failures and exceptions of every rank are shown with their rank, and the run goes on") {
  const outcome& result = t_failing.result();
  CHECK_FAILED(result);
  CHECK(result.says("values: CHECK( 1 != 1 )"));
  CHECK(result.says("logged: on rank 1 of 3\n          the disk has 7 sectors"));
  CHECK(result.says("rank 1 of 3 threw: the disk is full"));
  CHECK(result.says("rank 0 of 3 threw: no paper"));
  CHECK(result.says("rank 1 of 3 threw: an exception that is no std::exception"));
  CHECK(result.says("FATAL ERROR: REQUIRE( comm.rank() != 1 )"));
  CHECK(!result.says("the case goes on"));
  CHECK(result.says("1 passed | 4 failed"));
  CHECK(result.says("sample.cpp:"));
}

TEST_CASE("thread ranks: a REQUIRE of one rank releases the others") {
  const outcome& result = t_requirement.result();
  CHECK_FAILED(result);
  CHECK(result.seconds < 8);
  CHECK(result.says("FATAL ERROR: REQUIRE( comm.rank() != 1 )"));
  CHECK(result.says("rank 0 of 3 was ended by it: shardkit: rank 1 failed: a REQUIRE has failed on it"));
  CHECK(result.says("rank 2 of 3 was ended by it"));
  CHECK(!result.says("DEADLINE"));
}

TEST_CASE("thread ranks: a case that hangs is named, and the ranks that have not arrived") {
  const outcome& result = t_sleeps.result();
  CHECK_FAILED(result);
  CHECK(
      result.says("DEADLINE: 1.0 s have passed in the test case \"a rank sleeps\"; of 3 ranks these have not arrived "
                  "at the end of their body: 1\n"));
  CHECK_FAILED(t_total.result());
  CHECK(t_total.result().says("DEADLINE: 1.0 s have passed in the test case \"a rank sleeps\""));
}

TEST_CASE("thread ranks: a case may state a longer deadline than others have") {
  CHECK(t_slow.result().status == 0);
  CHECK_FAILED(t_own_deadline.result());
  CHECK(t_own_deadline.result().says("DEADLINE: 1.5 s have passed in the test case"));
}

TEST_CASE("thread ranks: what hangs after the last case is ended") {
  CHECK_FAILED(t_behind.result());
  CHECK(t_behind.result().says("DEADLINE: 1.0 s have passed after the test case \"a rank stays behind\""));
}

TEST_CASE("thread ranks: a rank that crashes is named, and its case") {
  CHECK_FAILED(t_crash.result());
  CHECK(t_crash.result().says("rank 1 of 3 has crashed"));
  CHECK(t_crash.result().says("TEST CASE:  a rank crashes"));
  CHECK(t_crash.result().says("SIGSEGV"));
}

TEST_CASE("thread ranks: too few ranks are a failure, unless allowed") {
  CHECK_FAILED(t_needs.result());
  CHECK(t_needs.result().says("the case needs 7 ranks and has 3; run with --ranks=7"));
  CHECK(t_needs.result().says("1 passed | 1 failed"));
  CHECK(t_allowed.result().status == 0);
  CHECK(t_allowed.result().says("skipped: the case needs 7 ranks and has 3"));
  CHECK(t_enough.result().status == 0);
}

TEST_CASE("thread ranks: doctest's options work, and a filter that matches nothing fails") {
  CHECK_FAILED(t_nothing.result());
  CHECK(t_nothing.result().says("no test case matches the filters"));
  CHECK(t_list.result().status == 0);
  CHECK(t_list.result().says("a requirement before a barrier"));
  CHECK(t_no_run.result().status == 0);
  CHECK(t_help.result().status == 0);
  CHECK(t_help.result().says("--allow-fewer-ranks"));
  CHECK(t_help.result().says("--test-case="));
  CHECK_FAILED(t_option.result());
  CHECK(t_option.result().says("--case-deadline=soon needs a number"));
}

TEST_CASE("thread ranks: JUnit reports hold the failures of all ranks") {
  CHECK_FAILED(t_junit.result());
  const std::string xml = contents("threads.xml");
  INFO(xml);
  CHECK(well_formed(xml));
  CHECK(count(xml, "<testcase ") == 5);
  CHECK(xml.find("on rank 1 of 3") != std::string::npos);
  CHECK(xml.find("rank 1 of 3 threw: the disk is full") != std::string::npos);
  CHECK(count(xml, "<error ") == 2);
}

TEST_CASE("thread ranks: JUnit reports tell the case that hangs and the one that crashes") {
  CHECK_FAILED(t_junit_hangs.result());
  const std::string hang = contents("threads_hang.xml");
  INFO(hang);
  CHECK(well_formed(hang));
  CHECK(count(hang, "<testcase ") == 2);
  CHECK(count(hang, "<failure ") == 1);
  CHECK(hang.find("sample.cpp:") < hang.find("comm.rank() != 1"));
  CHECK(hang.find("name=\"a rank sleeps\"") < hang.find("<error message=\"ended\">DEADLINE: 1.0 s have passed"));
  CHECK(hang.find("not arrived at the end of their body: 1</error>") != std::string::npos);

  CHECK_FAILED(t_junit_shown.result());
  CHECK(well_formed(t_junit_shown.result().output));
  CHECK(t_junit_shown.result().output.find("<?xml") == 0);
  CHECK(count(t_junit_shown.result().output, "<?xml") == 1);
  CHECK(count(t_junit_shown.result().output, "<error message=\"ended\">") == 1);

  CHECK_FAILED(t_junit_crashes.result());
  const std::string crash = contents("threads_crash.xml");
  INFO(crash);
  CHECK(well_formed(crash));
  CHECK(crash.find("name=\"a rank crashes\"") < crash.find("SIGSEGV"));
  CHECK(crash.find("SIGSEGV") != std::string::npos);
}

TEST_CASE("under another main on_ranks fails with the reason, and on_thread_ranks works") {
  CHECK_FAILED(t_foreign.result());
  CHECK(
      t_foreign.result().says("main is none of shardkit's; it has to call shardkit::testing::thread_main or mpi_main"));
  CHECK(t_foreign.result().says("1 passed | 1 failed"));
}

TEST_CASE("thread ranks refuse to run as several processes") {
  CHECK_FAILED(t_launcher.result());
  CHECK(t_launcher.result().says("WORLD_SIZE says that a launcher has started 3 processes"));
}
