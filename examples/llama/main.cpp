// llama: runs a Hugging Face Llama checkpoint over data x pipeline x tensor ranks. This file only makes the ranks, as
// threads or as the processes of an MPI launcher; what they do is in engine.hpp.
#include "run.hpp"
#include "tiny.hpp"

#include <shardkit/launch/launched_size.hpp>
#include <shardkit/launch/run_ranks.hpp>

#include <cstdio>
#include <exception>
#include <string>
#include <utility>

namespace {

shardkit::deadlines limits() {
  shardkit::deadlines seconds;
  seconds.operation = llama::longest_wait;
  return seconds;
}

// Started by a launcher whose processes cannot find each other, this program would run once per process.
[[maybe_unused]] void refuse_launcher(const shardkit::launched_processes& launched) {
  throw shardkit::usage_error(std::string(launched.variable) + " says that " + std::to_string(launched.size) +
                              " processes were started, but this llama was built without MPI; build it with MPI, or "
                              "start it by itself: --tensor, --pipeline and --data make thread ranks");
}

template <class Communicator>
void answer(Communicator& ranks, const llama::options& options) {
  if (options.device == "cuda") llama::run_on_gpus(ranks, options);
  else llama::run_on_host(shardkit::erase(std::move(ranks)), options);
}

void run(int argc, char** argv) {
  const llama::options options = llama::parse_options(argc, argv);
  if (!options.make_tiny.empty()) return llama::make_tiny_checkpoint(options.make_tiny);

  if (const auto launched = shardkit::launched_size(); launched.size > 1) {
#ifdef LLAMA_WITH_MPI
    shardkit::mpi_options with;
    with.limits = limits();
    shardkit::mpi_environment mpi(argc, argv, with);
    return mpi.run([&](shardkit::mpi_communicator& ranks) { answer(ranks, options); });
#else
    refuse_launcher(launched);
#endif
  }
  shardkit::launch_options with;
  with.limits = limits();
  with.on_failure = nullptr;  // main reports what it catches
  shardkit::run_ranks(options.data * options.pipeline * options.tensor, with,
                      [&](shardkit::thread_communicator& ranks) { answer(ranks, options); });
}

}  // namespace

int main(int argc, char** argv) {
  try {
    run(argc, argv);
    return 0;
  } catch (const std::exception& failure) {
    std::fprintf(stderr, "llama: %s\n", failure.what());
    return 1;
  }
}
