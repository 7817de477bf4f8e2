// How many processes the launcher says it started. Public through shardkit/launch/launched_size.hpp; the code lies
// here because backends may not include the folder below them.
#pragma once

#include <cstdlib>
#include <initializer_list>

namespace shardkit {

/// What `launched_size` found.
struct launched_processes {
  int size = 1;                    ///< processes started together; 1 where no launcher says more
  const char* variable = nullptr;  ///< the environment variable that said so; null where none did
};

/// Reads the environment of mpiexec (Open MPI, MPICH and its kin), srun and torchrun, in this order: mpiexec starts
/// its helpers by srun, so what srun says may count those. Needs no MPI, so that a program built without it, or with
/// another one than the launcher's, can refuse to run as `size` separate jobs of one rank each.
inline launched_processes launched_size() noexcept {
  // SLURM_NTASKS is not among them: a batch script has it outside srun, too.
  for (const char* variable :
       {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MPI_LOCALNRANKS", "SLURM_STEP_NUM_TASKS", "WORLD_SIZE"}) {
    const char* text = std::getenv(variable);
    if (text == nullptr) continue;
    const long size = std::strtol(text, nullptr, 10);
    if (size >= 1 && size <= 0x7fffffff) return {static_cast<int>(size), variable};
  }
  return {};
}

}  // namespace shardkit
