// Uses the core and, where asked for, one call of each component's library.
#include <shardkit/backends/self.hpp>
#include <shardkit/shardkit.hpp>

#ifdef WITH_MPI
#include <mpi.h>
#endif
#ifdef WITH_CUDA
#include <shardkit/cuda/space.hpp>
#endif
#ifdef WITH_NCCL
#include <nccl.h>
#endif
#ifdef WITH_CBLAS
#include <cblas.h>
#endif
#ifdef WITH_CHECKPOINT
#include <nlohmann/json.hpp>
#endif

#ifdef WITH_TESTING
#define DOCTEST_CONFIG_IMPLEMENT
#include <shardkit/testing/thread_ranks.hpp>
TEST_CASE("ranks meet") {
  shardkit::testing::on_ranks([](auto& comm) { CHECK(comm.all_reduce(1, shardkit::sum) == 4); });
}
#endif

#include <cstdio>
#include <vector>

int main(int argc, char** argv) {
  bool good = argc >= 1 && argv != nullptr;

  shardkit::self_communicator self{shardkit::self_backend{}};
  std::vector<double> values{1, 2, 3};
  self.all_reduce(shardkit::in_place(values), shardkit::sum);
  good = good && values[2] == 3 && self.all_reduce(4.0, shardkit::sum) == 4;

#ifdef WITH_MPI
  char library[MPI_MAX_LIBRARY_VERSION_STRING];
  int length = 0;
  good = good && MPI_Get_library_version(library, &length) == MPI_SUCCESS && length > 0;
#endif
#ifdef WITH_CUDA
  int runtime = 0;  // known without a driver
  good = good && cudaRuntimeGetVersion(&runtime) == cudaSuccess && runtime > 0;
#endif
#ifdef WITH_NCCL
  int nccl = 0;
  good = good && ncclGetVersion(&nccl) == ncclSuccess && nccl >= 21900;
#endif
#ifdef WITH_CBLAS
  good = good && cblas_ddot(3, values.data(), 1, values.data(), 1) == 14;
#endif
#ifdef WITH_CHECKPOINT
  good = good && nlohmann::json::parse("[7]")[0] == 7;
#endif

#ifdef WITH_TESTING
  good = good && shardkit::testing::thread_main(argc, argv) == 0;
#endif

  std::printf("consumer of shardkit %d: %s\n", SHARDKIT_VERSION, good ? "good" : "bad");
  return good ? 0 : 1;
}
