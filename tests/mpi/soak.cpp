// Random programs over MPI, each a job of its own: with a random fault, and with random delays only. The ordinary test
// runs a few; the nightly program runs the numbers that SOAK_NIGHTLY stands for.
#include <doctest/doctest.h>
#include <support/jobs.hpp>
#include "soak_plan.hpp"

#include <cstdint>
#include <deque>
#include <sstream>
#include <string>

#ifndef SOAK_NIGHTLY
#define SOAK_NIGHTLY 0
#endif

namespace {

using shardkit::fault_kind;
using shardkit_test::job;
using shardkit_test::outcome;

constexpr std::uint64_t faulty_jobs = SOAK_NIGHTLY ? 200 : 12;
constexpr std::uint64_t clean_jobs = 3;  // one bare, one checked, one traced
constexpr std::uint64_t clean_steps = SOAK_NIGHTLY ? 700 : 60;

std::string command(int ranks, const std::string& arguments) {
  return SHARDKIT_TEST_MPIEXEC " " + std::to_string(ranks) + " " SHARDKIT_TEST_SOAK_PROGRAM " " + arguments;
}

struct faulty_job {
  const std::uint64_t seed;
  const soak_plan plan;
  job run;
  explicit faulty_job(std::uint64_t of)
      : seed(of), plan(soak_plan::faulty(seed)), run(command(plan.ranks, "faulty " + std::to_string(seed))) {}
};
struct clean_job {
  const std::uint64_t seed;
  job run;
  explicit clean_job(std::uint64_t of)
      : seed(of), run(command(3, "clean " + std::to_string(seed) + " " + std::to_string(clean_steps))) {}
};

// All jobs, so that several can run at once; the longest come first.
std::deque<clean_job> clean_ones;
std::deque<faulty_job> faulty_ones;
const bool planned = [] {
  bool chosen[clean_jobs] = {};
  for (std::uint64_t seed = 1; clean_ones.size() < clean_jobs; ++seed) {
    bool& decoration = chosen[shardkit::detail::scrambled(seed, 50) % clean_jobs];
    if (!decoration) clean_ones.emplace_back(seed);
    decoration = true;
  }
  for (std::uint64_t seed = 1; seed <= faulty_jobs; ++seed) faulty_ones.emplace_back(seed);
  return true;
}();

/// What is wrong with how a job with a fault has ended; empty where nothing is.
std::string wrong_of(const soak_plan& plan, const outcome& result) {
  if (plan.fault.kind == fault_kind::delay)
    return result.status == 0 && result.output.empty() ? "" : "a delay has consequences";
  if (result.status == 0) return "the job has succeeded";
  if (result.seconds > 25) return "it took too long";  // deadlines of 2.5 s; the rest is for a busy machine
  if (result.says("a wrong result")) return "a wrong result";
  const std::string culprit = "rank " + std::to_string(plan.fault.rank);
  if (plan.drops_out()) {
    const bool named = result.says("; " + culprit + " is in no call") ||
                       result.says("; " + culprit + " is in send_recv") ||
                       result.says(culprit + " of this communicator did not post") ||
                       result.says(culprit + " has not told what it does");
    return named ? "" : "nobody says who is missing";
  }
  // It may have left requests behind, for whose buffers it has to wait in MPI.
  if (!result.says("caught on " + culprit + ": shardkit: injected at call ") && !result.says(culprit + " of "))
    return "the culprit is silent";
  std::istringstream lines(result.output);
  for (std::string line; std::getline(lines, line);) {
    const bool watchdog = line.rfind("shardkit: rank ", 0) == 0, told = line.rfind("told on rank ", 0) == 0;
    const bool other = line.rfind("caught on rank ", 0) == 0 && line.rfind("caught on " + culprit + ": ", 0) != 0;
    if (watchdog && line.find("because " + culprit + " failed: ") == std::string::npos) return "not named: " + line;
    if (told && line.find(": culprit " + std::to_string(plan.fault.rank) + ": ") == std::string::npos)
      return "not named: " + line;
    if (other) return "another failure: " + line;
  }
  return "";
}

}  // namespace

TEST_CASE("random faults over MPI: every job ends, and what its ranks and watchdogs say names the culprit") {
  int struck = 0;
  for (faulty_job& one : faulty_ones) {
    const outcome& result = one.run.result();
    INFO(result.output);
    const std::string wrong = wrong_of(one.plan, result);
    CHECK_MESSAGE(wrong.empty(), "seed ", one.seed, ": ", wrong);
    struck += one.plan.fault.kind != fault_kind::delay;
  }
  CHECK(struck > static_cast<int>(faulty_jobs / 3));
}

TEST_CASE("random delays over MPI, one of them half of the deadline, raise no alarm, and every result is right") {
  for (clean_job& one : clean_ones) {
    const outcome& result = one.run.result();
    CHECK_MESSAGE(result.status == 0, "seed ", one.seed);
    CHECK(result.output == "");
  }
}
