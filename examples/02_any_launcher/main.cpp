// One program for every way of starting it: by itself (then its ranks are threads), by mpiexec, by torchrun, by srun.
// The work is written once and does not know which it was.
#include <shardkit/shardkit.hpp>
#ifdef WITH_MPI
#include <shardkit/backends/mpi.hpp>
#endif

#include <cstdio>
#include <exception>
#include <string>
#include <utility>

using namespace shardkit;
using communicator_of_any_kind = any_communicator<host_space>;

// [work]
void work(communicator_of_any_kind comm, const char* ranks) {
  const int total = comm.all_reduce(comm.rank() + 1, sum);
  if (comm.is_root()) std::printf("%d ranks, %s: the sum of 1 to %d is %d\n", comm.size(), ranks, comm.size(), total);
}
// [work]

int main([[maybe_unused]] int argc, [[maybe_unused]] char** argv) try {
  // [start]
  const auto launch = launch_environment::detect();
  if (launch.launcher.empty()) {
    run_ranks(4, [](thread_communicator& comm) { work(erase(std::move(comm)), "threads of one process"); });
#ifdef WITH_MPI
  } else if (launch.launcher.find("mpiexec") != std::string::npos) {  // of any MPI
    mpi_environment mpi(argc, argv);
    mpi.run([](mpi_communicator& comm) { work(erase(std::move(comm)), "processes of mpiexec"); });
#endif
  } else {
    tcp_environment tcp(tcp_options_for(launch));
    tcp.run([&](tcp_communicator& comm) { work(erase(std::move(comm)), ("processes of " + launch.launcher).c_str()); });
  }
  // [start]
} catch (const std::exception& failure) {
  std::fprintf(stderr, "%s\n", failure.what());
  return 1;
}
