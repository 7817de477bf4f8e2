// The main of MPI ranks, seen from outside: what a run of sample.cpp under mpiexec prints and returns.
#include "runs.hpp"

#include <doctest/doctest.h>

#include <sstream>
#include <string>

using namespace sample_runs;

namespace {

const std::string mpi = SHARDKIT_TEST_MPIEXEC " 3 " SHARDKIT_TEST_SAMPLE_MPI " ";

job m_passing(mpi + "-ts=passing");
job m_failing(mpi + "-ts=failing");
job m_requirement(mpi + "-tc='a requirement before a barrier' --case-deadline=3");
job m_sleeps(mpi + "-tc='a rank sleeps,ranks meet' --case-deadline=2");
job m_needs(mpi + "-ts=demanding");
job m_allowed(mpi + "-ts=demanding --allow-fewer-ranks");
job m_own_deadline(mpi + "-tc='a rank sleeps for longer than it may' --case-deadline=0.5");
job m_slow(mpi + "-ts=slow --case-deadline=0.5");
job m_behind(mpi + "-tc='a rank stays behind' --case-deadline=1 -r=junit --out=" + folder + "/mpi_behind.xml");
job m_crash(mpi + "-tc='a rank crashes' --case-deadline=2");
job m_nothing(mpi + "-tc='no such case'");
job m_list(mpi + "--list-test-cases");
job m_junit(mpi + "-ts=failing -r=junit --out=" + folder + "/mpi.xml");
job m_junit_hangs(mpi + "-tc='a rank sleeps,a check fails' --case-deadline=1 -r=junit --out=" + folder +
                  "/mpi_hang.xml");
job m_no_run(mpi + "--no-run");
job m_no_out(mpi + "-ts=passing -r=junit");
job m_ranks(mpi + "--ranks=2");
// The status of every rank, as the launcher tells it only once.
job m_statuses(SHARDKIT_TEST_MPIEXEC " 3 sh -c '" SHARDKIT_TEST_SAMPLE_MPI
                                     " -ts=failing >/dev/null 2>&1; echo ended:$?'");

// Every line of doctest's comes behind a tag, the ranks in their order within a case.
void check_tags(const outcome& result) {
  std::istringstream lines(result.output);
  for (std::string line; std::getline(lines, line);)
    if (line.find("TEST CASE:") != std::string::npos || line.find("ERROR:") != std::string::npos ||
        line.find("[doctest]") != std::string::npos)
      CHECK_MESSAGE(line.substr(0, 6) == "[rank ", line);
}

}  // namespace

TEST_CASE("mpiexec: a run that passes says so, once") {
  const outcome& result = m_passing.result();
  INFO(result.output);
  CHECK(result.status == 0);
  CHECK(result.output == "[3 ranks] test cases: 3 | 3 passed | 0 failed\n");
}

TEST_CASE("mpiexec: failures and exceptions of every rank are shown, tagged and in order, and the run goes on") {
  const outcome& result = m_failing.result();
  CHECK_FAILED(result);
  check_tags(result);
  CHECK(result.says("[rank 1]   values: CHECK( 1 != 1 )"));
  CHECK(result.says("[rank 1]   logged: the disk has 7 sectors"));
  CHECK(result.says("ERROR: test case THREW exception: the disk is full"));
  CHECK(result.says("ERROR: test case THREW exception: no paper"));
  CHECK(result.says("FATAL ERROR: REQUIRE( comm.rank() != 1 )"));
  CHECK(result.output.find("[rank 0] TEST CASE:  exceptions of two ranks") <
        result.output.find("[rank 1] TEST CASE:  exceptions of two ranks"));
  CHECK(result.output.find("[rank 1] TEST CASE:  exceptions of two ranks") <
        result.output.find("[rank 1] TEST CASE:  a requirement at the end"));
  CHECK(result.says("[3 ranks] FAILED \"a check fails\" on rank 1\n"));
  CHECK(result.says("[3 ranks] FAILED \"an exception at the end\" on rank 1\n"));
  CHECK(result.says("[3 ranks] FAILED \"exceptions of two ranks\" on rank 0, 1\n"));
  CHECK(result.says("[3 ranks] test cases: 5 | 1 passed | 4 failed\n"));
}

TEST_CASE("mpiexec: all ranks return the same") {
  const outcome& result = m_statuses.result();
  INFO(result.output);
  CHECK(count(result.output, "ended:1") == 3);
}

TEST_CASE("mpiexec: a REQUIRE of one rank before a barrier ends the job and names who waits") {
  const outcome& result = m_requirement.result();
  CHECK_FAILED(result);
  CHECK(result.says("FATAL ERROR: REQUIRE( comm.rank() != 1 )"));
  CHECK(result.says("have passed since a rank failed in the test case \"a requirement before a barrier\""));
  CHECK(result.says("ranks that have not arrived at its end: 0, 2; ranks that have left it failing: 1"));
}

TEST_CASE("mpiexec: a case that hangs is named, and the ranks that have not arrived") {
  const outcome& result = m_sleeps.result();
  CHECK_FAILED(result);
  CHECK(
      result.says("DEADLINE: 2.0 s have passed in the test case \"a rank sleeps\"; ranks that have not arrived at "
                  "its end: 1\n"));
  CHECK(!result.says("CRASHED"));
}

TEST_CASE("mpiexec: a case may state a longer deadline than others have") {
  CHECK(m_slow.result().status == 0);
  CHECK_FAILED(m_own_deadline.result());
  CHECK(m_own_deadline.result().says("DEADLINE: 1.5 s have passed in the test case"));
}

TEST_CASE("mpiexec: a rank that stays behind after the last case is named, in the reports of all ranks too") {
  CHECK_FAILED(m_behind.result());
  const std::string place = "after the test case \"a rank stays behind\"; ranks that have not arrived at its end: 1";
  CHECK(m_behind.result().says("DEADLINE: 1.0 s have passed " + place + "\n"));
  for (int rank = 0; rank < 3; ++rank) {
    const std::string xml = contents("mpi_behind.rank" + std::to_string(rank) + ".xml");
    INFO(xml);
    CHECK(well_formed(xml));
    CHECK(xml.find("the job has ended after the test case") != std::string::npos);
    CHECK(xml.find("ranks that have not arrived at its end: 1</error>") != std::string::npos);
  }
}

TEST_CASE("mpiexec: a rank that crashes is named, and its case; the job ends") {
  CHECK_FAILED(m_crash.result());
  CHECK(m_crash.result().says("[rank 1] TEST CASE:  a rank crashes"));
  CHECK(m_crash.result().says("SIGSEGV"));
}

TEST_CASE("mpiexec: too few ranks are a failure, unless allowed") {
  CHECK_FAILED(m_needs.result());
  CHECK(m_needs.result().says("the case needs 7 ranks and has 3; start it with mpiexec -n 7"));
  CHECK(m_needs.result().says("\"needs seven ranks\" on rank 0, 1, 2"));
  INFO(m_allowed.result().output);
  CHECK(m_allowed.result().status == 0);
  CHECK(m_allowed.result().says("skipped: the case needs 7 ranks and has 3"));
}

TEST_CASE("mpiexec: doctest's options work, and a filter that matches nothing fails") {
  CHECK_FAILED(m_nothing.result());
  CHECK(count(m_nothing.result().output, "no test case matches the filters") == 1);
  CHECK(m_no_run.result().status == 0);
  CHECK(m_list.result().status == 0);
  CHECK(count(m_list.result().output, "a requirement before a barrier") == 1);
  CHECK_FAILED(m_ranks.result());
  CHECK(m_ranks.result().says("the launcher started 2 ranks and MPI sees 3"));
}

TEST_CASE("mpiexec: each rank writes a JUnit report of its own") {
  CHECK_FAILED(m_junit.result());
  for (int rank = 0; rank < 3; ++rank) {
    const std::string xml = contents("mpi.rank" + std::to_string(rank) + ".xml");
    INFO(xml);
    CHECK(well_formed(xml));
    CHECK(count(xml, "<testcase ") == 5);
    CHECK((xml.find("the disk has 7 sectors") != std::string::npos) == (rank == 1));
  }
  CHECK_FAILED(m_junit_hangs.result());
  for (int rank = 0; rank < 3; ++rank) {
    const std::string xml = contents("mpi_hang.rank" + std::to_string(rank) + ".xml");
    INFO(xml);
    CHECK(well_formed(xml));
    CHECK(count(xml, "<testcase ") == 2);
    CHECK(count(xml, "<failure ") == (rank == 1));
    CHECK(xml.find("the job has ended in the test case &quot;a rank sleeps&quot;; ranks that have not arrived at its "
                   "end: 1</error>") != std::string::npos);
  }
  CHECK_FAILED(m_no_out.result());
  CHECK(count(m_no_out.result().output, "add --out=FILE") == 1);
}
