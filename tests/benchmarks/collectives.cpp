// benchmarks/collectives, from outside: every verb runs and is right, its CSV tells the bytes that were moved and can
// be drawn, and what it cannot do it says instead of doing something else.
#include <doctest/doctest.h>
#include <support/jobs.hpp>

#include <fstream>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <vector>

using shardkit_test::outcome;
using shardkit_test::run_command;

namespace {

const std::string program = SHARDKIT_TEST_COLLECTIVES " ";
const std::string folder = SHARDKIT_TEST_FOLDER "/";
const std::string quick = " --rounds=1 --budget=0.001 ";
const std::vector<std::string> verbs{"barrier",
                                     "all_reduce",
                                     "all_reduce_in_place",
                                     "broadcast",
                                     "reduce",
                                     "all_gather",
                                     "reduce_scatter",
                                     "all_to_all",
                                     "gather",
                                     "scatter",
                                     "send_recv",
                                     "all_gather_unequal",
                                     "reduce_scatter_unequal",
                                     "all_to_all_unequal",
                                     "gather_unequal",
                                     "scatter_unequal"};

std::string all_verbs() {
  std::string all = "--verbs=";
  for (const std::string& verb : verbs) all += verb + ",";
  all.pop_back();
  return all;
}

// peer and verb -> the bytes of the rows
std::map<std::string, std::set<std::string>> rows(const std::string& file) {
  std::map<std::string, std::set<std::string>> result;
  std::ifstream lines(folder + file);
  std::string line;
  std::getline(lines, line);
  CHECK(line == "peer,ranks,verb,bytes,usec,algorithm GB/s,bus GB/s,clean %");
  while (std::getline(lines, line)) {
    std::vector<std::string> fields;
    std::istringstream text(line);
    for (std::string field; std::getline(text, field, ',');) fields.push_back(field);
    REQUIRE(fields.size() == 8);
    CHECK(fields[1] == "3");
    result[fields[0] + " " + fields[2]].insert(fields[3]);
  }
  return result;
}

// Three ranks that were asked for 8 and 4096 bytes.
void check_rows(const std::string& file, const std::vector<std::string>& peers) {
  const auto found = rows(file);
  CHECK(found.size() == peers.size() * verbs.size());
  for (const std::string& peer : peers)
    for (const std::string& verb : verbs) {
      INFO(peer, " ", verb);
      const bool equal_parts = verb == "all_gather" || verb == "reduce_scatter" || verb == "all_to_all" ||
                               verb == "gather" || verb == "scatter";
      const std::set<std::string> bytes = verb == "barrier" ? std::set<std::string>{"0"}
                                          : equal_parts     ? std::set<std::string>{"12", "4092"}
                                                            : std::set<std::string>{"8", "4096"};
      const auto row = found.find(peer + " " + verb);
      REQUIRE(row != found.end());
      CHECK(row->second == bytes);
    }
}

}  // namespace

TEST_CASE("thread ranks run every verb and report the bytes that they have moved") {
  const outcome result =
      run_command(program + "--ranks=3 --bytes=8,4096" + quick + all_verbs() + " --csv=" + folder + "threads.csv");
  INFO(result.output);
  REQUIRE(result.status == 0);
  CHECK(result.says("all_to_all_unequal, 3 ranks: usec per call"));
  check_rows("threads.csv", {"threads"});
}

TEST_CASE("a single rank has no messages to itself") {
  const outcome result = run_command(program + "--ranks=1 --bytes=8" + quick);
  INFO(result.output);
  CHECK(result.status == 0);
  CHECK(!result.says("send_recv"));
}

TEST_CASE("options that make no sense are refused by name") {
  for (const std::string option :
       {"--rounds=abc", "--rounds=0", "--rounds=3x", "--rounds=", "--ranks=0", "--ranks=-2", "--ranks= 2",
        "--bytes=8,,16", "--bytes=8k", "--bytes=2", "--bytes=99999999999", "--budget=fast", "--budget=0",
        "--budget=nan", "--verbs=barrier,all_redcue", "--csv=", "--roudns=3", "all_reduce"}) {
    const outcome result = run_command(program + "'" + option + "'");
    INFO(option, ": ", result.output);
    CHECK(result.status == 2);
    CHECK(result.output.find("shardkit: ") == 0);
    CHECK(result.says(option.substr(0, option.find('='))));
    CHECK(result.output.size() < 400);  // and nothing was measured
  }
}

TEST_CASE("a CSV that cannot be written, or not to its end, is an error") {
  const outcome closed = run_command(program + "--ranks=1 --bytes=8" + quick + "--csv=/nowhere/file.csv");
  CHECK(closed.status == 1);
  CHECK(closed.output == "cannot write /nowhere/file.csv: No such file or directory\n");
  const outcome full = run_command(program + "--ranks=1 --bytes=8 --verbs=barrier" + quick + "--csv=/dev/full");
  CHECK(full.status == 1);
  CHECK(full.says("/dev/full is not complete"));
}

#ifdef SHARDKIT_TEST_MPIEXEC

TEST_CASE("beside MPI every verb is right, one rank writes the CSV, and it can be drawn") {
  const std::string start = SHARDKIT_TEST_MPIEXEC " 3 " SHARDKIT_TEST_COLLECTIVES_MPI " --bytes=8,4096" + quick;
  const outcome result = run_command(start + all_verbs() + " --csv=" + folder + "mpi.csv");
  INFO(result.output);
  REQUIRE(result.status == 0);
  check_rows("mpi.csv", {"threads", "MPI", "raw MPI"});

  const outcome closed = run_command(start + "--csv=/nowhere/file.csv");
  CHECK(closed.status != 0);
  CHECK(closed.says("cannot write /nowhere/file.csv"));
  CHECK(!closed.says("usec per call"));
  const outcome ranks = run_command(start + "--ranks=2");
  CHECK(ranks.status == 2);
  CHECK(ranks.says("the launcher has started 3 ranks"));

#ifdef SHARDKIT_TEST_PLOT
  const outcome drawn = run_command(SHARDKIT_TEST_PLOT " " + folder + "mpi.csv " + folder + "mpi.svg title");
  INFO(drawn.output);
  CHECK(drawn.status == 0);
  std::ostringstream svg;
  svg << std::ifstream(folder + "mpi.svg").rdbuf();
  CHECK(svg.str().find("</svg>") != std::string::npos);
  for (const std::string& verb : verbs)
    CHECK((svg.str().find(">" + verb + "</text>") != std::string::npos) == (verb != "barrier"));
#else
  MESSAGE("skipped: the picture needs Python, which was not found");
#endif
}

#endif

#ifdef SHARDKIT_TEST_PLOT
TEST_CASE("what has no raw MPI beside it is not drawn, and the reason is said") {
  std::ofstream(folder + "alone.csv") << "peer,ranks,verb,bytes,usec\nthreads,3,all_reduce,8,1.0\n";
  const outcome drawn = run_command(SHARDKIT_TEST_PLOT " " + folder + "alone.csv " + folder + "alone.svg");
  CHECK(drawn.status == 1);
  CHECK(drawn.says("make it with mpiexec"));
}
#endif
