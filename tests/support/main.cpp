// main of the tests that run as one process.
#define DOCTEST_CONFIG_IMPLEMENT
#include "running_case.hpp"

#include <cstdio>
#include <iostream>

REGISTER_LISTENER("running case", 1, shardkit_test::running_case);

int main(int argc, char** argv) {
  const shardkit_test::options options(argc, argv);
  const shardkit_test::watchdog watchdog(options.deadline, [&] {
    std::cout.flush();
    std::fputs(shardkit_test::too_late(options.deadline).c_str(), stderr);
    std::_Exit(1);
  });
  doctest::Context context(argc, argv);
  return shardkit_test::result_of(context);
}
