// How long the waits of a launch may last. Fixed before launch, the same for every backend.
#pragma once

#include <shardkit/core/error.hpp>

#include <limits>
#include <string>

namespace shardkit {

/// A wait without end, for work under a debugger.
inline constexpr double no_deadline = std::numeric_limits<double>::infinity();

/// Seconds; every one positive, or no_deadline.
struct deadlines {
  double init = 60;        ///< until all ranks have arrived at the launch
  double operation = 120;  ///< of one call; longer than the slowest rank may come behind the fastest
  double abort = 5;        ///< for the peers of a failed rank to leave the call they are in
};

/// Throws usage_error where a deadline is zero, negative or not a number.
inline void require_valid(const deadlines& given) {
  const auto require = [](const char* name, double seconds) {
    if (!(seconds > 0))
      throw usage_error(std::string("the ") + name + " deadline is " + std::to_string(seconds) +
                        " seconds; it has to be positive, or no_deadline to wait for ever");
  };
  require("init", given.init);
  require("operation", given.operation);
  require("abort", given.abort);
}

}  // namespace shardkit
