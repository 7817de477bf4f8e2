// main of the tests that run as one process.
#define DOCTEST_CONFIG_IMPLEMENT
#include <shardkit/testing/thread_ranks.hpp>

int main(int argc, char** argv) { return shardkit::testing::thread_main(argc, argv); }
