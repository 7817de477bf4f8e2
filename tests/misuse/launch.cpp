// One misuse of run_ranks for each value of MISUSE; MISUSE 0 is right and must compile.
#include <shardkit/launch/run_ranks.hpp>

using namespace shardkit;

void use() {
#if MISUSE == 0
  run_ranks(2, [](thread_communicator&) {});
  run_ranks(2, launch_options{}, [](auto& comm) { comm.barrier(); });
#elif MISUSE == 1
  run_ranks(2, [] {});
#elif MISUSE == 2
  run_ranks(2, [](thread_communicator) {});
#elif MISUSE == 3
  run_ranks(2, [](int rank) { (void)rank; });
#endif
}
