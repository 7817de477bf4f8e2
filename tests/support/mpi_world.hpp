// The MPI environment that the test main has made, for the cases of shardkit_add_mpi_test.
#pragma once

#include <shardkit/testing/mpi_world.hpp>

namespace shardkit_test {

using shardkit::testing::mpi;

}  // namespace shardkit_test
