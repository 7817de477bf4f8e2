// main of the tests that run under mpiexec.
#define DOCTEST_CONFIG_IMPLEMENT
#include <shardkit/testing/mpi_main.hpp>

int main(int argc, char** argv) { return shardkit::testing::mpi_main(argc, argv); }
