// The suite on threads of one process: --ranks=4 says how many.
#define DOCTEST_CONFIG_IMPLEMENT
#include <shardkit/testing/thread_ranks.hpp>

int main(int argc, char** argv) { return shardkit::testing::thread_main(argc, argv); }
