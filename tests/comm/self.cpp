// The conformance suite on a rank alone.
#include "conformance.hpp"

#include <doctest/doctest.h>
#include <shardkit/backends/self.hpp>

#define ON_SELF(function, name)                                                                         \
  TEST_CASE("self: " name) {                                                                            \
    shardkit::self_communicator comm{shardkit::self_backend()};                                         \
    conformance::report report;                                                                         \
    conformance::sweep how;                                                                             \
    how.points = 4000;                                                                                  \
    how.always_ordered = true;                                                                          \
    conformance::function(comm, report, how);                                                           \
    CHECK_MESSAGE(report.failures() == 0, report.failures(), " of ", report.checks(), " checks failed", \
                  report.what());                                                                       \
  }
SHARDKIT_CONFORMANCE_CASES(ON_SELF)
