// llama: runs a Hugging Face Llama checkpoint over data x pipeline x tensor ranks. This file only makes the ranks, as
// threads or as the processes of an MPI launcher; what they do is in engine.cpp.
#include "engine.hpp"
#include "tiny.hpp"

#include <shardkit/launch/launched_size.hpp>
#include <shardkit/launch/run_ranks.hpp>
#ifdef LLAMA_WITH_MPI
#include <shardkit/backends/mpi.hpp>
#endif

#include <cstdio>
#include <exception>

namespace {

int run(int argc, char** argv) {
#ifdef LLAMA_WITH_MPI
  if (shardkit::launched_size().count > 1) {
    shardkit::mpi_environment mpi(argc, argv);
    llama::run(shardkit::erase(mpi.world()), llama::parse_options(argc, argv));
    return 0;
  }
#endif
  const llama::options options = llama::parse_options(argc, argv);
  if (!options.make_tiny.empty()) {
    llama::make_tiny_checkpoint(options.make_tiny);
    return 0;
  }
  shardkit::require_single_process();
  const int ranks = options.data * options.pipeline * options.tensor;
  shardkit::run_ranks(ranks, [&](shardkit::thread_communicator& comm) { llama::run(shardkit::erase(std::move(comm)), options); });
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const std::exception& failure) {
    std::fprintf(stderr, "llama: %s\n", failure.what());
    return 1;
  }
}
