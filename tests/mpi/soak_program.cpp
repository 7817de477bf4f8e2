// A random program over MPI, bare, checked or traced: "faulty SEED" with one fault, "clean SEED STEPS" with delays
// only. soak.cpp runs it under mpiexec and reads what it leaves behind.
#include <shardkit/backends/mpi.hpp>
#include "../comm/random_program.hpp"
#include "soak_plan.hpp"

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>

int main(int argc, char** argv) {
  if (argc < 3) return 3;
  const std::uint64_t seed = std::strtoull(argv[2], nullptr, 10);
  const soak_plan plan = std::string(argv[1]) == "faulty" ? soak_plan::faulty(seed)
                                                          : soak_plan::clean(seed, std::strtoull(argv[3], nullptr, 10));
  int rank = -1;
  try {
    shardkit::mpi_options options;
    options.limits = {30, plan.operation_deadline, 0.5};
    shardkit::mpi_environment mpi(argc, argv, options);
    rank = mpi.rank();
    mpi.run([&](shardkit::mpi_communicator& world) {
      random_program::comm_type comm = random_program::decorated(std::move(world), plan.fault, seed);
      using random_program::step;
      if (!random_program::run(comm, seed, plan.steps, plan.drops_out() ? step::collectives : step::kinds))
        std::fprintf(stderr, "a wrong result on rank %d\n", rank);
    });
  } catch (const shardkit::peer_failed& failure) {
    std::fprintf(stderr, "told on rank %d: culprit %d: %s\n", rank, failure.culprit(), failure.what());
    return 1;
  } catch (const std::exception& failure) {
    std::fprintf(stderr, "caught on rank %d: %s\n", rank, failure.what());
    return 1;
  }
  return 0;
}
