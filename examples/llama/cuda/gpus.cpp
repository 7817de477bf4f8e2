// Gives each rank a GPU, connects these, and runs the engine on them.
#include "../engine.hpp"
#include "../run.hpp"
#include "cuda_device.hpp"

#include <shardkit/backends/cuda_threads.hpp>
#ifdef LLAMA_WITH_MPI
#include <shardkit/backends/mpi_cuda.hpp>
#endif
#ifdef LLAMA_WITH_NCCL
#include <shardkit/backends/nccl.hpp>
#endif

#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <utility>

namespace llama {

extern template class model<cuda_device>;  // in cuda_device.cu

namespace {

struct place {
  char machine[256], gpu[32];

  bool operator==(const place& other) const { return std::memcmp(this, &other, sizeof *this) == 0; }
};

// Makes a GPU of the rank's machine the thread's current one, round robin. Whether each rank has one of its own.
template <class Communicator>
bool take_gpus(Communicator& ranks) {
  int gpus = 0;
  shardkit::cuda_check(cudaGetDeviceCount(&gpus), "cudaGetDeviceCount");
  place mine{};
  (void)::gethostname(mine.machine, sizeof mine.machine - 1);
  const auto machines = ranks.exchange(mine);
  const auto before = std::count(machines.begin(), machines.begin() + ranks.rank(), mine);
  const int gpu = static_cast<int>(before) % gpus;
  shardkit::cuda_check(cudaSetDevice(gpu), "cudaSetDevice");

  shardkit::cuda_check(cudaDeviceGetPCIBusId(mine.gpu, sizeof mine.gpu, gpu), "cudaDeviceGetPCIBusId");
  const auto places = ranks.exchange(mine);
  return std::all_of(places.begin(), places.end(),
                     [&](const place& one) { return std::count(places.begin(), places.end(), one) == 1; });
}

// NCCL, where it is there and no ranks share a GPU, which it does not allow; else what `otherwise` makes.
template <class Communicator, class Otherwise>
cuda_device::communicator connect_gpus([[maybe_unused]] Communicator& ranks, Otherwise otherwise) {
  [[maybe_unused]] const bool each_has_one = take_gpus(ranks);
#ifdef LLAMA_WITH_NCCL
  shardkit::nccl_options with;
  with.limits.operation = longest_wait;
  if (each_has_one) return shardkit::erase(shardkit::nccl_world(ranks, with));
#endif
  return shardkit::erase(otherwise());
}

}  // namespace

void run_on_gpus(shardkit::thread_communicator& ranks, const options& given) {
  auto gpus = connect_gpus(ranks, [&] { return shardkit::cuda_thread_world(ranks, {cuda_device::ordered_reduce()}); });
  auto world = shardkit::erase(std::move(ranks));
  run<cuda_device>(world, gpus, given);
}

#ifdef LLAMA_WITH_MPI
void run_on_gpus(shardkit::mpi_communicator& ranks, const options& given) {
  auto gpus = connect_gpus(ranks, [&] { return shardkit::mpi_cuda_world(ranks); });
  auto world = shardkit::erase(std::move(ranks));
  run<cuda_device>(world, gpus, given);
}
#endif

}  // namespace llama
