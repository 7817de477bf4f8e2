// The conformance suite over communicators that give MPI no more than a kilobyte in one call, so that counts far below
// MPI's limit take the same ways as counts beyond it.
#include <doctest/doctest.h>
#include <shardkit/backends/mpi.hpp>
#include "comm/conformance.hpp"
#include "support/mpi_world.hpp"

namespace {

template <class Case>
void in_pieces(Case run) {
  shardkit::mpi_options options;
  options.limits.operation = 60;
  options.piece_bytes = 1000;  // holds no whole number of some of the groups of elements that the suite moves
  shardkit::mpi_environment small(options);
  auto world = small.world();
  conformance::sweep how;
  how.points = 40;  // a collective takes milliseconds where ranks outnumber cores
  how.large = 20011;
  conformance::report report;
  run(world, report, how);
  CHECK_MESSAGE(report.failures() == 0, report.failures(), " of ", report.checks(), " checks failed", report.what());
}

}  // namespace

#define IN_PIECES(function, name)                                              \
  TEST_CASE("MPI in pieces: " name) {                                          \
    in_pieces([](auto& world, auto& report, const auto& how) {                 \
      conformance::function(world, report, how);                               \
    });                                                                        \
  }
SHARDKIT_CONFORMANCE_CASES(IN_PIECES)
