// What a test on the double of CUDA asks at the end of each case.
#pragma once

#include <doctest/doctest.h>
#include <double/control.hpp>

#include <string>

namespace shardkit_test {

/// Nothing was wrong, and nothing is left over. Resets the double; does nothing on a GPU.
inline void expect_clean() {
  if (!shardkit_double::active()) return;
  std::string text;
  for (const auto& one : shardkit_double::reset()) text += std::string("\n  ") + to_string(one.kind) + ": " + one.text;
  CHECK_MESSAGE(text.empty(), text);
}

}  // namespace shardkit_test
