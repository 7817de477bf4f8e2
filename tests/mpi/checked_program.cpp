// A checked program whose ranks make different calls, in the way that its arguments name: a scenario, and the rank that
// is wrong in it. Without arguments it lists the scenarios. checked.cpp runs it under mpiexec and reads what each rank
// prints.
#include <shardkit/backends/mpi.hpp>
#include <shardkit/comm/checked.hpp>
#include "../comm/mutations.hpp"

#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>

namespace {

using mutations::comm_type;

void make(const std::string& scenario, int wrong, comm_type& comm) {
  for (const mutations::mutation& one : mutations::all())
    if (one.what == scenario) one.make(comm, comm.rank() == wrong);
  for (const mutations::deadlock& one : mutations::deadlocks())
    if (one.what == scenario) one.make(comm);
}

/// How many ranks can be the wrong one, whether some may go on into MPI, and the name.
void list_scenarios() {
  for (const mutations::mutation& one : mutations::all())
    std::printf("%d %d %s\n", one.between_two ? 2 : 3, one.may_pass_some, one.what.c_str());
  for (const mutations::deadlock& one : mutations::deadlocks())
    std::printf("0 %d %s\n", one.may_pass_some, one.what.c_str());
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) return list_scenarios(), 0;
  int rank = -1;
  try {
    shardkit::mpi_options options;
    options.limits = {30, 30, 1};
    shardkit::mpi_environment mpi(argc, argv, options);
    rank = mpi.rank();
    comm_type comm = erase(with_checks(mpi.world()));
    make(argv[1], std::atoi(argv[2]), comm);
    comm.barrier(mutations::right());  // a rank that needs nobody in its call hears of it in the next one
  } catch (const shardkit::mismatch_error& found) {
    std::fprintf(stderr, "mismatch on rank %d: %s\n", rank, found.what());
    return 1;
  } catch (const std::exception& failure) {
    std::fprintf(stderr, "caught on rank %d: %s\n", rank, failure.what());
    return 1;
  }
  return 0;
}
