// The conformance suite through any_communicator: on thread ranks, and on TCP ranks, which need no suite compiled for
// them alone.
#include "conformance.hpp"
#include "on_tcp.hpp"
#include "on_threads.hpp"

#include <shardkit/comm/any_communicator.hpp>

#define ERASED(function, name)                                                                                       \
  TEST_CASE("erased: " name) {                                                                                       \
    on_threads(                                                                                                      \
        {1, 2, 3, 5, 8},                                                                                             \
        [](auto& comm, auto& report, const auto& how) {                                                              \
          auto any = shardkit::erase(std::move(comm));                                                               \
          conformance::function(any, report, how);                                                                   \
        },                                                                                                           \
        300);                                                                                                        \
  }                                                                                                                  \
  TEST_CASE("tcp: " name) {                                                                                          \
    on_tcp({1, 2, 3, 5}, [](auto& any, auto& report, const auto& how) { conformance::function(any, report, how); }); \
  }
SHARDKIT_CONFORMANCE_CASES(ERASED)
