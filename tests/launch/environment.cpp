// launch_environment::detect over simulated environments.
#include <doctest/doctest.h>
#include <shardkit/launch/launch_environment.hpp>

#include <map>
#include <string>
#include <vector>

using shardkit::launch_environment;

namespace {

using variables = std::map<std::string, std::string>;

launch_environment detect(const variables& environment) {
  return launch_environment::detect([&](const char* name) -> const char* {
    const auto found = environment.find(name);
    return found == environment.end() ? nullptr : found->second.c_str();
  });
}

variables operator+(variables one, const variables& other) {
  one.insert(other.begin(), other.end());
  return one;
}

const variables open_mpi{{"OMPI_COMM_WORLD_RANK", "3"},
                         {"OMPI_COMM_WORLD_SIZE", "8"},
                         {"OMPI_COMM_WORLD_LOCAL_RANK", "1"},
                         {"OMPI_COMM_WORLD_LOCAL_SIZE", "2"},
                         {"PMIX_RANK", "3"}};
const variables hydra{{"PMI_RANK", "5"}, {"PMI_SIZE", "6"}, {"MPI_LOCALRANKID", "2"}, {"MPI_LOCALNRANKS", "3"}};
const variables torchrun{{"RANK", "2"},
                         {"WORLD_SIZE", "4"},
                         {"LOCAL_RANK", "0"},
                         {"LOCAL_WORLD_SIZE", "2"},
                         {"MASTER_ADDR", "node7"},
                         {"MASTER_PORT", "29500"},
                         {"TORCHELASTIC_RUN_ID", "r17"},
                         {"TORCHELASTIC_RESTART_COUNT", "0"}};
const variables srun{{"SLURM_PROCID", "4"},
                     {"SLURM_STEP_NUM_TASKS", "7"},
                     {"SLURM_LOCALID", "1"},
                     {"SLURM_NODEID", "1"},
                     {"SLURM_STEP_TASKS_PER_NODE", "3(x2),1"},
                     {"SLURM_STEP_NODELIST", "gpu[003-005]"},
                     {"SLURM_JOB_ID", "99"},
                     {"SLURM_STEP_ID", "0"}};
const variables batch_script{{"SLURM_PROCID", "0"},
                             {"SLURM_NTASKS", "8"},
                             {"SLURM_LOCALID", "0"},
                             {"SLURM_JOB_ID", "99"},
                             {"SLURM_NODELIST", "gpu[003-005]"},
                             {"SLURM_NODEID", "0"}};
const variables given{{"SHARDKIT_RANK", "1"}, {"SHARDKIT_SIZE", "9"}};

}  // namespace

TEST_CASE("every launcher is recognised with its ranks and the variables that said so") {
  const struct {
    const char* what;
    variables environment;
    int rank, size, local_rank, local_size;
    std::string launcher, first_match, host;
  } table[] = {
      {"nothing", {}, 0, 1, 0, 1, "", "", ""},
      {"a batch script outside srun", batch_script, 0, 1, 0, 1, "", "", ""},
      {"Open MPI", open_mpi, 3, 8, 1, 2, "Open MPI's mpiexec", "OMPI_COMM_WORLD_RANK=3", ""},
      {"MPICH", hydra, 5, 6, 2, 3, "MPICH's or Intel's mpiexec", "PMI_RANK=5", ""},
      {"torchrun", torchrun, 2, 4, 0, 2, "torchrun", "RANK=2", "node7"},
      {"srun", srun, 4, 7, 1, 3, "srun", "SLURM_PROCID=4", "gpu003"},
      {"explicit values", given, 1, 9, -1, -1, "explicit values", "SHARDKIT_RANK=1", ""},
      {"srun with PMIx", srun + variables{{"PMIX_RANK", "4"}}, 4, 7, 1, 3, "srun", "SLURM_PROCID=4", "gpu003"},
      {"mpiexec that started its helpers by srun", open_mpi + srun, 3, 8, 1, 2, "Open MPI's mpiexec",
       "OMPI_COMM_WORLD_RANK=3", ""},
      {"torchrun that srun started once for each node", torchrun + srun, 2, 4, 0, 2, "torchrun", "RANK=2", "node7"},
      {"explicit values before any launcher", given + open_mpi + torchrun, 1, 9, -1, -1, "explicit values",
       "SHARDKIT_RANK=1", ""},
      {"half-set variables of another launcher under mpiexec", hydra + variables{{"WORLD_SIZE", "1"}}, 5, 6, 2, 3,
       "MPICH's or Intel's mpiexec", "PMI_RANK=5", ""},
      {"PMI of one size beside the step", srun + variables{{"RANK", "4"}, {"WORLD_SIZE", "7"}}, 4, 7, -1, -1,
       "torchrun", "RANK=4", ""},
  };
  for (const auto& row : table) {
    CAPTURE(row.what);
    const auto found = detect(row.environment);
    CHECK(found.rank == row.rank);
    CHECK(found.size == row.size);
    CHECK(found.local_rank == row.local_rank);
    CHECK(found.local_size == row.local_size);
    CHECK(found.launcher == row.launcher);
    CHECK((found.matched.empty() ? "" : found.matched.front()) == row.first_match);
    CHECK(found.host == row.host);
    CHECK(found.describe().find(row.first_match) != std::string::npos);
  }
}

TEST_CASE("incomplete, wrong and contradictory variables are refused by name") {
  const struct {
    variables environment;
    std::vector<std::string> named;
  } table[] = {
      {{{"RANK", "1"}}, {"RANK=1", "WORLD_SIZE", "unset"}},
      {{{"WORLD_SIZE", "2"}}, {"WORLD_SIZE=2", "RANK"}},
      {{{"OMPI_COMM_WORLD_SIZE", "2"}}, {"OMPI_COMM_WORLD_SIZE=2", "OMPI_COMM_WORLD_RANK"}},
      {{{"PMI_RANK", "0"}}, {"PMI_RANK=0", "PMI_SIZE"}},
      {{{"MPI_LOCALNRANKS", "4"}}, {"MPI_LOCALNRANKS=4", "PMI_RANK"}},
      {{{"SLURM_STEP_NUM_TASKS", "4"}}, {"SLURM_STEP_NUM_TASKS=4", "SLURM_PROCID"}},
      {{{"SHARDKIT_SIZE", "4"}}, {"SHARDKIT_SIZE=4", "SHARDKIT_RANK"}},
      {{{"PMIX_RANK", "2"}}, {"PMIX_RANK=2", "SHARDKIT_SIZE", "mpi_environment"}},
      {{{"RANK", "1"}, {"WORLD_SIZE", "two"}}, {"WORLD_SIZE is 'two'"}},
      {{{"RANK", ""}, {"WORLD_SIZE", "2"}}, {"RANK is ''"}},
      {{{"RANK", "-1"}, {"WORLD_SIZE", "2"}}, {"RANK is '-1'"}},
      {{{"RANK", "99999999999"}, {"WORLD_SIZE", "2"}}, {"RANK is '99999999999'"}},
      {{{"RANK", "2"}, {"WORLD_SIZE", "2"}}, {"rank 2 is not below the size 2", "RANK=2", "WORLD_SIZE=2"}},
      {{{"RANK", "0"}, {"WORLD_SIZE", "0"}}, {"the size is 0"}},
      {{{"RANK", "1"}, {"WORLD_SIZE", "2"}, {"LOCAL_RANK", "3"}, {"LOCAL_WORLD_SIZE", "2"}},
       {"local rank 3", "LOCAL_RANK=3"}},
      {{{"RANK", "0"}, {"WORLD_SIZE", "2"}, {"LOCAL_RANK", "7"}},
       {"local rank 7 is not below the size 2", "LOCAL_RANK=7", "WORLD_SIZE=2"}},
      {{{"RANK", "0"}, {"WORLD_SIZE", "2"}, {"LOCAL_WORLD_SIZE", "2"}}, {"LOCAL_WORLD_SIZE=2", "LOCAL_RANK"}},
      {{{"LOCAL_RANK", "0"}}, {"LOCAL_RANK=0", "RANK", "torchrun", "unset"}},
      {{{"LOCAL_WORLD_SIZE", "2"}}, {"LOCAL_WORLD_SIZE=2", "RANK"}},
      {{{"OMPI_COMM_WORLD_LOCAL_RANK", "1"}}, {"OMPI_COMM_WORLD_LOCAL_RANK=1", "OMPI_COMM_WORLD_RANK"}},
      {{{"OMPI_COMM_WORLD_LOCAL_SIZE", "2"}}, {"OMPI_COMM_WORLD_LOCAL_SIZE=2", "OMPI_COMM_WORLD_RANK"}},
      {{{"MPI_LOCALRANKID", "1"}}, {"MPI_LOCALRANKID=1", "PMI_RANK"}},
      {{{"SHARDKIT_LOCAL_RANK", "1"}}, {"SHARDKIT_LOCAL_RANK=1", "SHARDKIT_RANK"}},
      {{{"SHARDKIT_LOCAL_SIZE", "1"}}, {"SHARDKIT_LOCAL_SIZE=1", "SHARDKIT_RANK"}},
      {given + variables{{"SHARDKIT_LOCAL_SIZE", "3"}}, {"SHARDKIT_LOCAL_SIZE=3", "SHARDKIT_LOCAL_RANK"}},
      {given + variables{{"SHARDKIT_LOCAL_RANK", "9"}}, {"local rank 9", "SHARDKIT_LOCAL_RANK=9"}},
      {open_mpi + variables{{"SHARDKIT_LOCAL_RANK", "1"}}, {"SHARDKIT_LOCAL_RANK=1", "SHARDKIT_RANK"}},
      {{{"SHARDKIT_PORT", "4000"}}, {"SHARDKIT_PORT is set", "SHARDKIT_RANK", "SHARDKIT_SIZE"}},
      {{{"SHARDKIT_HOST", "node7"}}, {"SHARDKIT_HOST is set", "SHARDKIT_RANK"}},
      {{{"SHARDKIT_LISTEN", "node7"}}, {"SHARDKIT_LISTEN is set", "SHARDKIT_RANK"}},
      {{{"SHARDKIT_JOB_TOKEN", "s3cret"}}, {"SHARDKIT_JOB_TOKEN is set", "SHARDKIT_RANK"}},
      {batch_script + variables{{"SHARDKIT_PORT", "4000"}}, {"SHARDKIT_PORT is set"}},
      {{{"RANK", " 1"}, {"WORLD_SIZE", "2"}}, {"RANK is ' 1'"}},
      {{{"RANK", "+1"}, {"WORLD_SIZE", "2"}}, {"RANK is '+1'"}},
      {{{"RANK", "1 "}, {"WORLD_SIZE", "2"}}, {"RANK is '1 '"}},
      {{{"RANK", "0"}, {"WORLD_SIZE", "2"}, {"LOCAL_RANK", " 0"}}, {"LOCAL_RANK is ' 0'"}},
      {{{"RANK", "1"}, {"WORLD_SIZE", "2"}, {"LOCAL_RANK", "0"}, {"LOCAL_WORLD_SIZE", "4"}}, {"the node has 4 ranks"}},
      {{{"RANK", "1"}, {"WORLD_SIZE", "2"}, {"MASTER_ADDR", "a"}}, {"MASTER_ADDR", "MASTER_PORT"}},
      {{{"RANK", "1"}, {"WORLD_SIZE", "2"}, {"MASTER_ADDR", "a"}, {"MASTER_PORT", "70000"}}, {"MASTER_PORT is 70000"}},
      {open_mpi + hydra, {"contradict", "OMPI_COMM_WORLD_RANK=3", "PMI_RANK=5"}},
      {open_mpi + torchrun, {"contradict", "OMPI_COMM_WORLD_SIZE=8", "WORLD_SIZE=4"}},
      {srun + variables{{"RANK", "4"}, {"WORLD_SIZE", "8"}}, {"contradict", "SLURM_STEP_NUM_TASKS=7", "WORLD_SIZE=8"}},
      {variables{{"SLURM_STEP_NODELIST", "gpu["}} + srun, {"SLURM_STEP_NODELIST is 'gpu['"}},
      {variables{{"SLURM_STEP_NODELIST", ""}} + srun, {"SLURM_STEP_NODELIST is ''"}},
      {variables{{"SLURM_STEP_NODELIST", "gpu[,3]"}} + srun, {"SLURM_STEP_NODELIST is 'gpu[,3]'", "SHARDKIT_HOST"}},
  };
  for (const auto& row : table) {
    std::string shown, text;
    for (const auto& [name, value] : row.environment) shown += name + "=" + value + " ";
    CAPTURE(shown);
    try {
      text = "accepted: " + detect(row.environment).describe();
    } catch (const shardkit::usage_error& refused) {
      text = refused.what();
    }
    CAPTURE(text);
    for (const std::string& name : row.named) CHECK(text.find(name) != std::string::npos);
    CHECK(text.find("accepted") == std::string::npos);
    CHECK(text.find("s3cret") == std::string::npos);
  }
}

TEST_CASE("the first host of a compressed list is found") {
  const struct {
    const char *list, *first;
  } table[] = {
      {"login", "login"},          {"login,gpu[1-3]", "login"}, {"gpu[003-007,12]-b,login", "gpu003-b"},
      {"r[1-2]n[08-15]", "r1n08"}, {"node[7]", "node7"},        {"a.b-c[10,20].example.org", "a.b-c10.example.org"},
      {"10.0.0.[5-9]", "10.0.0.5"}};
  for (const auto& row : table) {
    CAPTURE(row.list);
    CHECK(shardkit::detail::first_host(row.list) == row.first);
  }
}

TEST_CASE("the ranks of each node come from the compressed list of tasks") {
  using shardkit::detail::tasks_of_node;
  const int tasks[] = {4, 4, 3, 2, 2, 2};
  for (int node = 0; node < 6; ++node) CHECK(tasks_of_node("4(x2),3,2(x3)", node) == tasks[node]);
  CHECK(tasks_of_node("4(x2),3", 3) == -1);
  for (const char* wrong : {"", "x", "4(x", "4(x)", "4(y2)", "0", "4;5", "4294967296(x9)"})
    CHECK(tasks_of_node(wrong, 1) == -1);
}

TEST_CASE("all ranks of a launch derive the same place to meet, another launch another job") {
  const auto first = detect(srun), second = detect(variables{{"SLURM_PROCID", "0"}} + srun);
  CHECK(first.port == second.port);
  CHECK(first.job == second.job);
  CHECK(first.port >= 20000);
  CHECK(first.port + first.ports <= 32768);
  CHECK(detect(variables{{"SLURM_STEP_ID", "1"}} + srun).job != first.job);
  CHECK(detect(variables{{"SLURM_RESTART_COUNT", "1"}} + srun).job != first.job);
  CHECK(detect(variables{{"TORCHELASTIC_RESTART_COUNT", "1"}} + torchrun).job != detect(torchrun).job);
}

TEST_CASE("under torchrun the port of its store is left alone, unless the user names one") {
  const auto found = detect(torchrun);
  CHECK(found.port == 29501);
  CHECK(found.ports > 1);
  CHECK(detect(variables{{"MASTER_PORT", "65535"}} + torchrun).port < 65535);
  const auto chosen = detect(torchrun + variables{{"SHARDKIT_PORT", "4444"}, {"SHARDKIT_HOST", "10.1.1.1"}});
  CHECK(chosen.port == 4444);
  CHECK(chosen.ports == 1);
  CHECK(chosen.host == "10.1.1.1");
}

TEST_CASE("there is no token where nothing tells launches apart") {
  CHECK(detect({{"RANK", "0"}, {"WORLD_SIZE", "2"}, {"TORCHELASTIC_RESTART_COUNT", "0"}}).job == "");
  CHECK(detect({{"SLURM_PROCID", "0"}, {"SLURM_STEP_NUM_TASKS", "2"}, {"SLURM_STEP_ID", "0"}}).job == "");
  CHECK(detect(given).job == "");
}

TEST_CASE("a token from the environment is used and not shown") {
  const auto found = detect(torchrun + variables{{"SHARDKIT_JOB_TOKEN", "s3cret"}});
  CHECK(found.job == "s3cret");
  CHECK(found.describe().find("s3cret") == std::string::npos);
}
