// Makes ranks for the engine beside it and, where asked for, calls each component's library once.
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

#include <atomic>
#include <cstddef>
#include <cstdio>
#include <cstring>

std::size_t count_rows(shardkit::any_communicator<shardkit::host_space>& comm, std::size_t rows);

int main(int argc, char** argv) {
  bool good = argc >= 1 && argv != nullptr;

  std::atomic<int> ranks{0};
  shardkit::run_ranks(3, [&](shardkit::thread_communicator& comm) { ranks += comm.all_reduce(1, shardkit::sum); });
  auto alone = shardkit::erase(shardkit::self_communicator(shardkit::self_backend()));
  good = good && ranks == 9 && count_rows(alone, 7) == 7;

#ifdef PACKAGE_VERSION
  good = good && std::strcmp(shardkit::version, PACKAGE_VERSION) == 0;
#endif
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
  const double values[] = {1, 2, 3};
  good = good && cblas_ddot(3, values, 1, values, 1) == 14;
#endif
#ifdef WITH_CHECKPOINT
  good = good && nlohmann::json::parse("[7]")[0] == 7;
#endif

#ifdef WITH_TESTING
  good = good && shardkit::testing::thread_main(argc, argv) == 0;
#endif

  std::printf("consumer of shardkit %s: %s\n", shardkit::version, good ? "good" : "bad");
  return good ? 0 : 1;
}
