// The two test mains, seen from outside: what a run of sample.cpp prints and returns on thread ranks and, where there
// is MPI, on the processes of mpiexec.
#include <doctest/doctest.h>
#include <support/jobs.hpp>

#include <cstdio>
#include <fstream>
#include <sstream>
#include <string>

#include <unistd.h>

namespace {

using shardkit_test::job;
using shardkit_test::outcome;

const std::string threads = SHARDKIT_TEST_SAMPLE_THREADS " --ranks=3 ";
const std::string folder = SHARDKIT_TEST_FOLDER;

// How often `text` stands in `where`.
int count(const std::string& where, const std::string& text) {
  int times = 0;
  for (std::size_t at = where.find(text); at != std::string::npos; at = where.find(text, at + text.size())) ++times;
  return times;
}

std::string contents(const std::string& file) {
  std::ostringstream all;
  all << std::ifstream(folder + "/" + file).rdbuf();
  return all.str();
}

// Elements that are opened and closed in order, attributes in quotes: as much as a reader of JUnit files relies on.
bool well_formed(const std::string& xml) {
  std::string open;
  bool any = false;
  for (std::size_t at = xml.find('<'); at != std::string::npos; at = xml.find('<', at + 1)) {
    const std::size_t end = xml.find('>', at);
    if (end == std::string::npos) return false;
    const std::string tag = xml.substr(at + 1, end - at - 1);
    if (count(tag, "\"") % 2 != 0) return false;
    if (tag.front() == '?') continue;
    const std::string name = tag.substr(0, tag.find_first_of(" /", 1));
    if (tag.front() == '/') {
      if (open.size() < name.size() || open.substr(open.size() - name.size()) != name) return false;
      open.resize(open.size() - name.size());
    } else if (tag.back() != '/') {
      open += "/" + name;
      any = true;
    }
  }
  return any && open.empty();
}

// The program has failed by itself: not ended by a signal or for its time.
#define CHECK_FAILED(result)     \
  INFO((result).output);         \
  CHECK((result).status != 0);   \
  CHECK((result).status != 124); \
  CHECK((result).seconds < 30)

// ---- Thread ranks ------------------------------------------------------------------------------------------------

job t_passing(threads + "-ts=passing");
job t_failing(threads + "-ts=failing");
job t_requirement(threads + "-tc='a requirement before a barrier' --case-deadline=20");
job t_sleeps(threads + "-tc='a rank sleeps,ranks meet' --case-deadline=1");
job t_total(threads + "-tc='a rank sleeps' --deadline=1");
job t_needs(threads + "-ts=demanding");
job t_allowed(threads + "-ts=demanding --allow-fewer-ranks");
job t_enough(SHARDKIT_TEST_SAMPLE_THREADS " --ranks=7 -ts=demanding");
job t_nothing(threads + "-tc='no such case'");
job t_list(threads + "--list-test-cases");
job t_help(threads + "--help");
job t_junit(threads + "-ts=failing -r=junit --out=" + folder + "/threads.xml");
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

TEST_CASE("thread ranks refuse to run as several processes") {
  CHECK_FAILED(t_launcher.result());
  CHECK(t_launcher.result().says("WORLD_SIZE says that a launcher has started 3 processes"));
}

#ifdef SHARDKIT_TEST_MPIEXEC

// ---- Processes of mpiexec ----------------------------------------------------------------------------------------

namespace {

const std::string mpi = SHARDKIT_TEST_MPIEXEC " 3 " SHARDKIT_TEST_SAMPLE_MPI " ";

job m_passing(mpi + "-ts=passing");
job m_failing(mpi + "-ts=failing");
job m_requirement(mpi + "-tc='a requirement before a barrier' --case-deadline=3");
job m_sleeps(mpi + "-tc='a rank sleeps,ranks meet' --case-deadline=2");
job m_needs(mpi + "-ts=demanding");
job m_allowed(mpi + "-ts=demanding --allow-fewer-ranks");
job m_nothing(mpi + "-tc='no such case'");
job m_list(mpi + "--list-test-cases");
job m_junit(mpi + "-ts=failing -r=junit --out=" + folder + "/mpi.xml");
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
  CHECK_FAILED(m_no_out.result());
  CHECK(count(m_no_out.result().output, "add --out=FILE") == 1);
}

#endif
