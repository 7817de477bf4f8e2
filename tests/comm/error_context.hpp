// What an error that a test provokes has to say of itself.
#pragma once

#include "failing_launch.hpp"

#include <string>

/// Runs the action and returns what it threw.
template <class Action>
ending ending_of(Action action) {
  try {
    action();
  } catch (...) {
    return ending::caught();
  }
  return {};
}

/// `line` of a file of these tests; 0 where the operation takes no call site.
inline void check_context(const ending& got, int rank, int size, const std::string& communicator,
                          const std::string& operation, int line) {
  INFO(got.what);
  CHECK(got.context.rank == rank);
  CHECK(got.context.size == size);
  CHECK(got.context.communicator == communicator);
  CHECK(got.context.operation == operation);
  CHECK(got.context.site.line == line);
  if (line != 0) CHECK(std::string(got.context.site.file).find("tests/comm/") != std::string::npos);
}
