// The conformance suite as one function, for programs that run it on several communicators of a kind.
#pragma once

#include "../conformance.hpp"

#include <doctest/doctest.h>

namespace conformance {

template <class Communicator>
void run_all(Communicator& comm, const sweep& how) {
#define RUN(function, name)                                                                                         \
  {                                                                                                                 \
    conformance::report report;                                                                                     \
    conformance::function(comm, report, how);                                                                       \
    CHECK_MESSAGE(report.failures() == 0, name, ": ", report.failures(), " of ", report.checks(), " checks failed", \
                  report.what());                                                                                   \
  }
  SHARDKIT_CONFORMANCE_CASES(RUN)
#undef RUN
}

}  // namespace conformance
