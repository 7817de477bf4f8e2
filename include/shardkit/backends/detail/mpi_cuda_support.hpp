// Whether the MPI library takes device memory ("CUDA-aware"), as far as it says so.
#pragma once

#include <shardkit/backends/detail/mpi_api.hpp>

#if defined(OPEN_MPI) && __has_include(<mpi-ext.h>)
#include <mpi-ext.h>
#endif

#include <cstdlib>
#include <cstring>

namespace shardkit::detail {

/// To be asked after MPI_Init. False where the library has no way to tell.
inline bool mpi_says_cuda_aware() noexcept {
#if defined(OPEN_MPI) && defined(MPIX_CUDA_AWARE_SUPPORT)
  return MPIX_Query_cuda_support() == 1;
#elif defined(MPIX_GPU_SUPPORT_CUDA)
  // MPICH answers for its build; this switches it off at run time.
  const char* enabled = std::getenv("MPIR_CVAR_ENABLE_GPU");
  if (enabled != nullptr && std::strcmp(enabled, "0") == 0) return false;
  int supported = 0;
  return MPIX_GPU_query_support(MPIX_GPU_SUPPORT_CUDA, &supported) == MPI_SUCCESS && supported != 0;
#else
  return false;
#endif
}

}  // namespace shardkit::detail
