// The conformance suite over MPI. A sample, four of each element type and every operation on each of them: where ranks
// share cores, some MPI libraries need milliseconds for a call.
#include "conformance.hpp"

#include <doctest/doctest.h>
#include <shardkit/comm/any_communicator.hpp>
#include <support/mpi_world.hpp>

#define ON_MPI(function, name)                                                                          \
  TEST_CASE("mpi: " name) {                                                                             \
    auto world = shardkit_test::mpi().world();                                                          \
    conformance::report report;                                                                         \
    conformance::sweep how;                                                                             \
    how.points = 52;                                                                                    \
    how.every_operation = true;                                                                         \
    conformance::function(world, report, how);                                                          \
    CHECK_MESSAGE(report.failures() == 0, report.failures(), " of ", report.checks(), " checks failed", \
                  report.what());                                                                       \
  }
SHARDKIT_CONFORMANCE_CASES(ON_MPI)
