// The conformance suite on thread ranks.
#include "conformance.hpp"
#include "on_threads.hpp"

#define ON_THREADS(function, name)                                                          \
  TEST_CASE("threads: " name) {                                                             \
    on_threads({1, 2, 3, 4, 5, 6, 7, 8, 9}, [](auto& comm, auto& report, const auto& how) { \
      conformance::function(comm, report, how);                                             \
    }, 2000);                                                                                     \
  }
SHARDKIT_CONFORMANCE_CASES(ON_THREADS)
