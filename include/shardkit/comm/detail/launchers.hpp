// The one table of what launchers leave in the environment of the processes that they start. Public through
// launch/launch_environment.hpp and launch/launched_size.hpp; it lies here because backends read it, too.
#pragma once

#include <cstdlib>
#include <initializer_list>

namespace shardkit {
namespace detail {

/// One launcher's variables; null where it has none for this.
struct launcher_variables {
  const char* launcher;
  const char* rank;
  const char* size;
  const char* local_rank;
  const char* local_size;
};

// In the order in which they count. mpiexec first: it starts its helpers by srun, so what srun says may count those;
// torchrun, too, is often started by srun, once for each node. Of Slurm only what srun sets for a step: a batch script
// has SLURM_PROCID and SLURM_NTASKS as well and is no rank.
inline constexpr launcher_variables open_mpi_variables{"Open MPI's mpiexec", "OMPI_COMM_WORLD_RANK",
                                                       "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK",
                                                       "OMPI_COMM_WORLD_LOCAL_SIZE"};
inline constexpr launcher_variables hydra_variables{"MPICH's or Intel's mpiexec", "PMI_RANK", "PMI_SIZE",
                                                    "MPI_LOCALRANKID", "MPI_LOCALNRANKS"};
inline constexpr launcher_variables torchrun_variables{"torchrun", "RANK", "WORLD_SIZE", "LOCAL_RANK",
                                                       "LOCAL_WORLD_SIZE"};
inline constexpr launcher_variables srun_variables{"srun", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID",
                                                   nullptr};
inline constexpr launcher_variables explicit_variables{"explicit values", "SHARDKIT_RANK", "SHARDKIT_SIZE",
                                                       "SHARDKIT_LOCAL_RANK", "SHARDKIT_LOCAL_SIZE"};

}  // namespace detail

/// What `launched_size` found.
struct launched_processes {
  int size = 1;                    ///< processes started together; 1 where no launcher says more
  const char* variable = nullptr;  ///< the environment variable that said so; null where none did
};

/// Reads the environment of mpiexec (Open MPI, MPICH and its kin), torchrun and srun, in this order. Needs no MPI, so
/// that a program built without it, or with another one than the launcher's, can refuse to run as `size` separate jobs
/// of one rank each. Nonsense counts as nothing; launch_environment::detect (launch/) is the strict reader.
inline launched_processes launched_size() noexcept {
  for (const char* variable :
       {detail::open_mpi_variables.size, detail::hydra_variables.size, detail::hydra_variables.local_size,
        detail::torchrun_variables.size, detail::srun_variables.size}) {
    const char* text = std::getenv(variable);
    if (text == nullptr) continue;
    const long size = std::strtol(text, nullptr, 10);
    if (size >= 1 && size <= 0x7fffffff) return {static_cast<int>(size), variable};
  }
  return {};
}

}  // namespace shardkit
