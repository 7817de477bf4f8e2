// The conformance suite over a backend with the required verbs alone: every composition of complete<B>.
#include "conformance.hpp"
#include "on_threads.hpp"
#include "required_verbs_only.hpp"

#define COMPOSED(function, name)                                \
  TEST_CASE("composed: " name) {                                \
    on_threads(                                                 \
        {1, 2, 3, 4, 5, 7},                                     \
        [](auto& comm, auto& report, const auto& how) {         \
          auto composed = with_composed_verbs(std::move(comm)); \
          conformance::function(composed, report, how);         \
        },                                                      \
        600);                                                   \
  }
SHARDKIT_CONFORMANCE_CASES(COMPOSED)
