// launched_size reads what launchers leave in the environment. No MPI here.
#include <doctest/doctest.h>
#include <shardkit/launch/launched_size.hpp>

#include <cstdlib>
#include <map>
#include <string>

namespace {

constexpr const char* variables[] = {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MPI_LOCALNRANKS", "SLURM_STEP_NUM_TASKS",
                                     "WORLD_SIZE"};

shardkit::launched_processes with(const std::map<std::string, std::string>& environment) {
  for (const char* variable : variables) ::unsetenv(variable);
  for (const auto& [variable, value] : environment) ::setenv(variable.c_str(), value.c_str(), 1);
  const auto found = shardkit::launched_size();
  for (const auto& [variable, value] : environment) ::unsetenv(variable.c_str());
  return found;
}

}  // namespace

TEST_CASE("without a launcher there is one process and no variable that says so") {
  const auto found = with({});
  CHECK(found.size == 1);
  CHECK(found.variable == nullptr);
}

TEST_CASE("every launcher's variable is read and named") {
  for (const char* variable : variables) {
    const auto found = with({{variable, "6"}});
    CHECK(found.size == 6);
    REQUIRE(found.variable != nullptr);
    CHECK(std::string(found.variable) == variable);
  }
}

TEST_CASE("of nested launchers the inner one counts: mpiexec before the srun that starts its helpers") {
  const auto found = with({{"SLURM_STEP_NUM_TASKS", "2"}, {"OMPI_COMM_WORLD_SIZE", "1"}, {"WORLD_SIZE", "8"}});
  CHECK(found.size == 1);
  CHECK(std::string(found.variable) == "OMPI_COMM_WORLD_SIZE");
}

TEST_CASE("a batch script outside srun is not a launcher, and nonsense is ignored") {
  ::setenv("SLURM_NTASKS", "8", 1);
  CHECK(with({{"PMI_SIZE", ""}, {"WORLD_SIZE", "many"}, {"OMPI_COMM_WORLD_SIZE", "-3"}}).size == 1);
  ::unsetenv("SLURM_NTASKS");
}
