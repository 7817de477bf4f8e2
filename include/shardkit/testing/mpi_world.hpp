// For test cases that want MPI itself: the environment that mpi_main has made.
#pragma once

#include <shardkit/backends/mpi.hpp>
#include <shardkit/core/error.hpp>

namespace shardkit::testing {
namespace detail {

inline mpi_environment*& the_mpi() {
  static mpi_environment* current = nullptr;
  return current;
}

}  // namespace detail

/// One for the whole program: MPI can be initialised once. mpi().world() is the world, mpi().adopt(...) takes over an
/// MPI communicator of the test's own. To free a communicator takes all ranks: on_ranks sees to that also where one
/// rank leaves a case early.
inline mpi_environment& mpi() {
  if (detail::the_mpi() == nullptr) throw usage_error("the program's main is not shardkit::testing::mpi_main");
  return *detail::the_mpi();
}

}  // namespace shardkit::testing
