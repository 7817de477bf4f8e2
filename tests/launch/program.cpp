// A program as users write it, started without MPI. Its first argument says what becomes of rank 1, the second is the
// operation deadline in seconds. Ends with 0, or with 3 where it has reported an error.
#include <shardkit/launch/tcp_launch.hpp>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <stdexcept>
#include <string>

#include <unistd.h>

int main(int argc, char** argv) {
  const std::string what = argc > 1 ? argv[1] : "sum";
  try {
    const auto launch = shardkit::launch_environment::detect();
    auto options = shardkit::tcp_options_for(launch);
    options.limits.init = argc > 3 ? std::atof(argv[3]) : 20;
    options.limits.operation = argc > 2 ? std::atof(argv[2]) : 20;
    options.limits.abort = 2;
    shardkit::tcp_environment tcp(options);
    tcp.run([&](shardkit::tcp_communicator& world) {
      const int sum = world.all_reduce(world.rank() + 1, shardkit::sum);
      std::printf("rank %d of %d: sum %d (%s)\n", world.rank(), world.size(), sum, launch.describe().c_str());
      std::fflush(stdout);
      if (world.rank() == 1) {
        if (what == "throws") throw std::runtime_error("out of luck");
        if (what == "vanishes") ::_exit(0);
        if (what == "killed") ::raise(SIGKILL);
        if (what == "late") ::sleep(4);
      }
      // Long enough for whatever happens meanwhile.
      for (int round = 0; what == "goes-on" && round < 1000; ++round) {
        world.barrier();
        ::usleep(10000);
      }
      if (what == "differs") {  // a call more, which waits for nobody
        int value = 0;
        if (world.rank() == 1) world.broadcast(shardkit::view(&value, 1), 1);
        return;
      }
      world.barrier();
    });
  } catch (const std::exception& failure) {
    std::printf("error: %s\n", failure.what());
    return 3;
  }
}
