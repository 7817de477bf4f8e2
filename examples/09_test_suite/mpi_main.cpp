// The suite on the processes of mpiexec.
#define DOCTEST_CONFIG_IMPLEMENT
#include <shardkit/testing/mpi_main.hpp>

int main(int argc, char** argv) { return shardkit::testing::mpi_main(argc, argv); }
