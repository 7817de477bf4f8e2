// The program of these tests, started several times at once with what a launcher would set.
#pragma once

#include <support/jobs.hpp>

#include <functional>
#include <string>
#include <thread>
#include <vector>

#include <unistd.h>

using shardkit_test::outcome;
using shardkit_test::run_command;

inline const std::string program = SHARDKIT_TEST_PROGRAM;

/// One command for each rank, all at once; `meanwhile` runs beside them.
inline std::vector<outcome> together(
    const std::vector<std::string>& commands, const std::function<void()>& meanwhile = [] {}) {
  std::vector<outcome> results(commands.size());
  std::vector<std::thread> threads;
  for (std::size_t rank = 0; rank < commands.size(); ++rank)
    threads.emplace_back([&, rank] { results[rank] = run_command(commands[rank]); });
  meanwhile();
  for (auto& thread : threads) thread.join();
  return results;
}

/// No two runs of this test, nor two of its cases, are one launch.
inline std::string fresh_id() {
  static int count = 0;
  return std::to_string(::getpid()) + "." + std::to_string(++count);
}

/// What srun sets for the tasks of a step, the first on host 1 and all others on host 2.
inline std::string step(int rank, int size, const std::string& hosts, const std::string& job) {
  return "env SLURM_PROCID=" + std::to_string(rank) + " SLURM_STEP_NUM_TASKS=" + std::to_string(size) +
         " SLURM_LOCALID=" + std::to_string(rank == 0 ? 0 : rank - 1) + " SLURM_NODEID=" + (rank == 0 ? "0" : "1") +
         " SLURM_NTASKS=" + std::to_string(size) + " 'SLURM_STEP_NODELIST=" + hosts + "' SLURM_STEP_TASKS_PER_NODE=1," +
         std::to_string(size - 1) + " SLURM_JOB_ID=" + job + " SLURM_STEP_ID=0 ";
}
