// The MPI environment that the test main has made, for the cases of shardkit_add_mpi_test.
#pragma once

#include <shardkit/backends/mpi.hpp>

namespace shardkit_test {

/// One for the whole program: MPI can be initialised once. shardkit_test::mpi().world() is the world.
shardkit::mpi_environment& mpi();

}  // namespace shardkit_test
