// Gives each rank a GPU, connects these, and runs the engine on them.
#include "../engine.hpp"
#include "../run.hpp"
#include "cuda_device.hpp"

#include <shardkit/backends/cuda_threads.hpp>
#include <shardkit/cuda/device.hpp>
#ifdef LLAMA_WITH_MPI
#include <shardkit/backends/mpi_cuda.hpp>
#include <shardkit/launch/launch_environment.hpp>
#endif
#ifdef LLAMA_WITH_NCCL
#include <shardkit/backends/nccl.hpp>
#endif

#include <unistd.h>

#include <cstddef>
#include <cstring>
#include <utility>

namespace llama {

extern template class model<cuda_device>;  // in cuda_device.cu

namespace {

// Makes a GPU of this node the thread's current one, round robin.
void take_gpu(int number_on_node) {
  int gpus = 0;
  shardkit::cuda_check(cudaGetDeviceCount(&gpus), "cudaGetDeviceCount");
  shardkit::cuda_check(cudaSetDevice(number_on_node % gpus), "cudaSetDevice");
}

// NCCL, where it is there and no two ranks share a GPU, which it does not allow; else what `otherwise` makes.
template <class Communicator, class Otherwise>
cuda_device::communicator connect([[maybe_unused]] Communicator& ranks, Otherwise otherwise) {
#ifdef LLAMA_WITH_NCCL
  struct place {
    char host[256], bus[32];
  };
  place mine{};
  (void)::gethostname(mine.host, sizeof mine.host - 1);
  shardkit::cuda_check(cudaDeviceGetPCIBusId(mine.bus, sizeof mine.bus, shardkit::current_cuda_device()),
                       "cudaDeviceGetPCIBusId");
  const auto places = ranks.exchange(mine);
  bool shared = false;
  for (std::size_t i = 0; i < places.size(); ++i)
    for (std::size_t j = 0; j < i; ++j) shared = shared || std::memcmp(&places[i], &places[j], sizeof mine) == 0;
  shardkit::nccl_options with;
  with.limits.operation = longest_wait;
  if (!shared) return shardkit::erase(shardkit::nccl_world(ranks, with));
#endif
  return shardkit::erase(otherwise());
}

}  // namespace

void run_on_gpus(shardkit::thread_communicator& ranks, const options& given) {
  take_gpu(ranks.rank());
  auto gpus = connect(ranks, [&] { return shardkit::cuda_thread_world(ranks, {cuda_device::ordered_reduce()}); });
  auto world = shardkit::erase(std::move(ranks));
  run<cuda_device>(world, gpus, given);
}

#ifdef LLAMA_WITH_MPI
void run_on_gpus(shardkit::mpi_communicator& ranks, const options& given) {
  const int local_rank = shardkit::launch_environment::detect().local_rank;
  take_gpu(local_rank < 0 ? ranks.rank() : local_rank);
  auto gpus = connect(ranks, [&] { return shardkit::mpi_cuda_world(ranks); });
  auto world = shardkit::erase(std::move(ranks));
  run<cuda_device>(world, gpus, given);
}
#endif

}  // namespace llama
