// The conformance suite through any_communicator.
#include "conformance.hpp"
#include "on_threads.hpp"

#include <shardkit/comm/any_communicator.hpp>

#define ERASED(function, name)                                                   \
  TEST_CASE("erased: " name) {                                                   \
    on_threads({1, 2, 3, 5, 8}, [](auto& comm, auto& report, const auto& how) {  \
      auto any = shardkit::erase(std::move(comm));                               \
      conformance::function(any, report, how);                                   \
    }, 300);                                                                     \
  }
SHARDKIT_CONFORMANCE_CASES(ERASED)
