// What the library adds to the MPI call that it wraps: instructions and heap allocations per call. overhead.sh counts
// them with callgrind inside measured() only. One rank, so that no waiting is counted: figures repeat exactly.
//
//   overhead raw|shardkit|empty [all_reduce|broadcast|all_gather|barrier] [calls]
#include <shardkit/backends/mpi.hpp>

#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <string>

namespace {
long allocations = 0;

template <class Body>
[[gnu::noinline]] void measured(Body&& body, long calls) {
  for (long i = 0; i < calls; ++i) body();
}
}  // namespace

extern "C" {
void* __libc_malloc(std::size_t);
void* malloc(std::size_t bytes) {
  ++allocations;
  return __libc_malloc(bytes);
}
}

int main(int argc, char** argv) {
  shardkit::mpi_environment mpi(argc, argv);
  const std::string variant = argc > 1 ? argv[1] : "raw", verb = argc > 2 ? argv[2] : "all_reduce";
  const long calls = argc > 3 ? std::atol(argv[3]) : 1000;
  auto world = mpi.world();
  const MPI_Comm comm = world.backend().native_handle();
  float x[2] = {0, 0}, y[2] = {0, 0};
  const shardkit::view<float> both(x, 2), out(y, 2);

  const auto count = [&](auto body) {
    body();  // what is made at the first call only
    const long before = allocations;
    measured(body, calls);
    std::printf("allocations_per_call %.4f\n", static_cast<double>(allocations - before) / static_cast<double>(calls));
  };
  const bool library = variant == "shardkit";
  if (variant == "empty") {
    count([] { asm volatile("" ::: "memory"); });
  } else if (verb == "all_reduce") {
    if (library) count([&] { world.all_reduce(shardkit::in_place(both), shardkit::sum); });
    else count([&] { MPI_Allreduce(MPI_IN_PLACE, x, 2, MPI_FLOAT, MPI_SUM, comm); });
  } else if (verb == "broadcast") {
    if (library) count([&] { world.broadcast(both, 0); });
    else count([&] { MPI_Bcast(x, 2, MPI_FLOAT, 0, comm); });
  } else if (verb == "all_gather") {
    if (library) count([&] { world.all_gather(both, out); });
    else count([&] { MPI_Allgather(x, 2, MPI_FLOAT, y, 2, MPI_FLOAT, comm); });
  } else if (verb == "barrier") {
    if (library) count([&] { world.barrier(); });
    else count([&] { MPI_Barrier(comm); });
  } else {
    std::fprintf(stderr, "unknown verb %s\n", verb.c_str());
    return 2;
  }
}
