// What checked<B> finds over MPI ends the job in time, and every rank says which ranks differ, and where. Runs
// checked_program under mpiexec (operation deadline 30 s, abort grace 1 s) with three ranks and reads what it printed.
// The nightly program lets each rank be the wrong one.
#include <doctest/doctest.h>
#include <support/jobs.hpp>

#include <cstddef>
#include <deque>
#include <sstream>
#include <string>

#ifndef CHECKED_NIGHTLY
#define CHECKED_NIGHTLY 0
#endif

namespace {

using shardkit_test::job;
using shardkit_test::outcome;

constexpr int ranks = 3;

struct scenario {
  std::string what;
  int wrong;           // the rank; -1 where the ranks wait for each other
  bool may_pass_some;  // into a call of MPI's that the others do not join
  job run;

  scenario(std::string name, int rank, bool passes)
      : what(std::move(name)),
        wrong(rank),
        may_pass_some(passes),
        run(SHARDKIT_TEST_MPIEXEC " " + std::to_string(ranks) + " " SHARDKIT_TEST_CHECKED_PROGRAM " '" + what + "' " +
            std::to_string(wrong)) {}
};

std::deque<scenario>& scenarios() {
  static std::deque<scenario> all;
  if (!all.empty()) return all;
  const outcome list = shardkit_test::run_command(SHARDKIT_TEST_CHECKED_PROGRAM);
  REQUIRE(list.status == 0);
  std::istringstream lines(list.output);
  std::string name;
  int candidates = 0, passes = 0;
  for (int number = 0; lines >> candidates >> passes && std::getline(lines >> std::ws, name); ++number)
    if (candidates == 0) all.emplace_back(name, -1, passes != 0);
    else
      for (int rank = 0; rank < candidates; ++rank)
        if (CHECKED_NIGHTLY || rank == number % candidates) all.emplace_back(name, rank, passes != 0);
  return all;
}

/// The line that begins with these words; empty where there is none.
std::string line_of(const std::string& output, const std::string& words) {
  std::istringstream lines(output);
  for (std::string line; std::getline(lines, line);)
    if (line.rfind(words, 0) == 0) return line;
  return {};
}

void check_names_both(const scenario& one, const std::string& line) {
  INFO(line);
  if (one.wrong >= 0) CHECK(line.find("rank " + std::to_string(one.wrong) + " ") != std::string::npos);
  CHECK(line.find("ranks make different calls: rank ") != std::string::npos);
  CHECK(line.find("right.cpp:10") != std::string::npos);
  CHECK(line.find("wrong.cpp:20") != std::string::npos);
}

template <class Check>
void each_scenario(bool may_pass_some, Check check) {
  std::size_t found = 0;
  for (scenario& one : scenarios()) {
    if (one.may_pass_some != may_pass_some) continue;
    ++found;
    CAPTURE(one.what);
    CAPTURE(one.wrong);
    const outcome& result = one.run.result();
    INFO(result.output);
    CHECK(result.status != 0);
    CHECK(result.seconds < 25);             // found out, not waited for until the operation deadline
    CHECK(!result.says("caught on rank"));  // of what is no mismatch_error
    check(one, result);
  }
  CHECK(found > 1);
}

}  // namespace

TEST_CASE("each field that one rank changes, and each wait without an end, is a mismatch_error on every rank") {
  each_scenario(false, [](const scenario& one, const outcome& result) {
    for (int rank = 0; rank < ranks; ++rank)
      check_names_both(one, line_of(result.output, "mismatch on rank " + std::to_string(rank) + ": "));
  });
}

TEST_CASE(
    "a rank that is blocked in MPI cannot throw; the abort grace later its watchdog says the same and ends the job") {
  each_scenario(true, [](const scenario& one, const outcome& result) {
    int thrown = 0, blocked = 0;
    for (int rank = 0; rank < ranks; ++rank) {
      const std::string thrower = line_of(result.output, "mismatch on rank " + std::to_string(rank) + ": ");
      const std::string watchdog = line_of(result.output, "shardkit: rank " + std::to_string(rank) + " of 3 ");
      if (!thrower.empty()) check_names_both(one, thrower);
      if (!watchdog.empty()) check_names_both(one, watchdog);
      thrown += !thrower.empty();
      blocked += watchdog.find(" 1 s after the failure, because rank ") != std::string::npos;
    }
    CHECK((thrown == ranks || blocked > 0));
  });
}
