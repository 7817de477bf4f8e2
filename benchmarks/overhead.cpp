// What the library adds to the MPI call that it wraps: instructions and heap allocations per call, in loops as programs
// have them, on one communicator. overhead.sh counts them with callgrind inside the measured functions only. One rank,
// so that no waiting is counted: figures repeat exactly.
//
//   overhead raw|shardkit CASE [calls]      the cases are listed in main
#include <shardkit/backends/mpi.hpp>
#include <shardkit/comm/traced.hpp>

#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <new>
#include <string>
#include <vector>

namespace {

using shardkit::in_place;
using shardkit::mpi_communicator;
using shardkit::sum;

using traced_communicator = shardkit::communicator<shardkit::traced<shardkit::mpi_backend>>;

long allocations = 0, calls_begun = 0, calls_ended = 0;

struct buffers {
  float x[2] = {0, 0}, y[2] = {0, 0};
  std::vector<float> v = {0, 0};
};

[[gnu::noinline]] void measured_raw_all_reduce(float (&x)[2], MPI_Comm comm, long calls) {
  for (long i = 0; i < calls; ++i) MPI_Allreduce(MPI_IN_PLACE, x, 2, MPI_FLOAT, MPI_SUM, comm);
}
[[gnu::noinline]] void measured_all_reduce(float (&x)[2], mpi_communicator& comm, long calls) {
  for (long i = 0; i < calls; ++i) comm.all_reduce(in_place(x), sum);
}

[[gnu::noinline]] void measured_raw_vector(std::vector<float>& x, MPI_Comm comm, long calls) {
  for (long i = 0; i < calls; ++i)
    MPI_Allreduce(MPI_IN_PLACE, x.data(), static_cast<int>(x.size()), MPI_FLOAT, MPI_SUM, comm);
}
[[gnu::noinline]] void measured_vector(std::vector<float>& x, mpi_communicator& comm, long calls) {
  for (long i = 0; i < calls; ++i) comm.all_reduce(in_place(x), sum);
}

// A function that makes one call and does nothing else has to save the registers that the call's own checks need.
[[gnu::noinline]] void measured_raw_single(float (&x)[2], MPI_Comm comm) {
  MPI_Allreduce(MPI_IN_PLACE, x, 2, MPI_FLOAT, MPI_SUM, comm);
}
[[gnu::noinline]] void measured_single(float (&x)[2], mpi_communicator& comm) { comm.all_reduce(in_place(x), sum); }

// With hooks that do what the least of them does, count.
[[gnu::noinline]] void measured_traced(float (&x)[2], traced_communicator& comm, long calls) {
  for (long i = 0; i < calls; ++i) comm.all_reduce(in_place(x), sum);
}

[[gnu::noinline]] void measured_raw_broadcast(float (&x)[2], MPI_Comm comm, long calls) {
  for (long i = 0; i < calls; ++i) MPI_Bcast(x, 2, MPI_FLOAT, 0, comm);
}
[[gnu::noinline]] void measured_broadcast(float (&x)[2], mpi_communicator& comm, long calls) {
  for (long i = 0; i < calls; ++i) comm.broadcast(x, 0);
}

[[gnu::noinline]] void measured_raw_all_gather(float (&x)[2], float (&y)[2], MPI_Comm comm, long calls) {
  for (long i = 0; i < calls; ++i) MPI_Allgather(x, 2, MPI_FLOAT, y, 2, MPI_FLOAT, comm);
}
[[gnu::noinline]] void measured_all_gather(float (&x)[2], float (&y)[2], mpi_communicator& comm, long calls) {
  for (long i = 0; i < calls; ++i) comm.all_gather(x, y);
}

[[gnu::noinline]] void measured_raw_reduce(float (&x)[2], float (&y)[2], MPI_Comm comm, long calls) {
  for (long i = 0; i < calls; ++i) MPI_Reduce(x, y, 2, MPI_FLOAT, MPI_SUM, 0, comm);
}
[[gnu::noinline]] void measured_reduce(float (&x)[2], float (&y)[2], mpi_communicator& comm, long calls) {
  for (long i = 0; i < calls; ++i) comm.reduce(x, y, sum, 0);
}

[[gnu::noinline]] void measured_raw_reduce_scatter(float (&x)[2], float (&y)[2], MPI_Comm comm, long calls) {
  for (long i = 0; i < calls; ++i) MPI_Reduce_scatter_block(x, y, 2, MPI_FLOAT, MPI_SUM, comm);
}
[[gnu::noinline]] void measured_reduce_scatter(float (&x)[2], float (&y)[2], mpi_communicator& comm, long calls) {
  for (long i = 0; i < calls; ++i) comm.reduce_scatter(x, y, sum);
}

[[gnu::noinline]] void measured_raw_gather(float (&x)[2], float (&y)[2], MPI_Comm comm, long calls) {
  for (long i = 0; i < calls; ++i) MPI_Gather(x, 2, MPI_FLOAT, y, 2, MPI_FLOAT, 0, comm);
}
[[gnu::noinline]] void measured_gather(float (&x)[2], float (&y)[2], mpi_communicator& comm, long calls) {
  for (long i = 0; i < calls; ++i) comm.gather(x, y, 0);
}

[[gnu::noinline]] void measured_raw_scatter(float (&x)[2], float (&y)[2], MPI_Comm comm, long calls) {
  for (long i = 0; i < calls; ++i) MPI_Scatter(x, 2, MPI_FLOAT, y, 2, MPI_FLOAT, 0, comm);
}
[[gnu::noinline]] void measured_scatter(float (&x)[2], float (&y)[2], mpi_communicator& comm, long calls) {
  for (long i = 0; i < calls; ++i) comm.scatter(x, y, 0);
}

[[gnu::noinline]] void measured_raw_all_to_all(float (&x)[2], float (&y)[2], MPI_Comm comm, long calls) {
  for (long i = 0; i < calls; ++i) MPI_Alltoall(x, 2, MPI_FLOAT, y, 2, MPI_FLOAT, comm);
}
[[gnu::noinline]] void measured_all_to_all(float (&x)[2], float (&y)[2], mpi_communicator& comm, long calls) {
  for (long i = 0; i < calls; ++i) comm.all_to_all(x, y);
}

[[gnu::noinline]] void measured_raw_send_recv(float (&x)[2], float (&y)[2], MPI_Comm comm, long calls) {
  for (long i = 0; i < calls; ++i) MPI_Sendrecv(x, 2, MPI_FLOAT, 0, 1, y, 2, MPI_FLOAT, 0, 1, comm, MPI_STATUS_IGNORE);
}
[[gnu::noinline]] void measured_send_recv(float (&x)[2], float (&y)[2], mpi_communicator& comm, long calls) {
  for (long i = 0; i < calls; ++i) comm.send_recv(x, 0, y, 0);
}

[[gnu::noinline]] void measured_raw_barrier(MPI_Comm comm, long calls) {
  for (long i = 0; i < calls; ++i) MPI_Barrier(comm);
}
[[gnu::noinline]] void measured_barrier(mpi_communicator& comm, long calls) {
  for (long i = 0; i < calls; ++i) comm.barrier();
}

}  // namespace

// Whatever hands out memory; operator new, aligned or not, comes here.
extern "C" {
void* __libc_malloc(std::size_t);
void* __libc_calloc(std::size_t, std::size_t);
void* __libc_realloc(void*, std::size_t);
void* __libc_memalign(std::size_t, std::size_t);
void* malloc(std::size_t bytes) {
  ++allocations;
  return __libc_malloc(bytes);
}
void* calloc(std::size_t count, std::size_t bytes) {
  ++allocations;
  return __libc_calloc(count, bytes);
}
void* realloc(void* memory, std::size_t bytes) {
  ++allocations;
  return __libc_realloc(memory, bytes);
}
void* aligned_alloc(std::size_t alignment, std::size_t bytes) {
  ++allocations;
  return __libc_memalign(alignment, bytes);
}
void* memalign(std::size_t alignment, std::size_t bytes) { return aligned_alloc(alignment, bytes); }
int posix_memalign(void** memory, std::size_t alignment, std::size_t bytes) {
  *memory = aligned_alloc(alignment, bytes);
  return *memory == nullptr ? ENOMEM : 0;
}
}

int main(int argc, char** argv) {
  shardkit::mpi_environment mpi(argc, argv);
  const std::string variant = argc > 1 ? argv[1] : "raw", wanted = argc > 2 ? argv[2] : "all_reduce";
  const long calls = argc > 3 ? std::atol(argv[3]) : 1000;
  auto world = mpi.world();
  const MPI_Comm comm = world.backend().native_handle();
  shardkit::operation_hook hook;
  hook.begin = [](void*, const shardkit::operation&) noexcept { ++calls_begun; };
  hook.end = [](void*, const shardkit::operation&) noexcept { ++calls_ended; };
  traced_communicator traced = shardkit::with_trace(mpi.world("traced"), hook);
  buffers b;

  const std::map<std::string, void (*)(buffers&, MPI_Comm, long)> raw = {
      {"all_reduce", [](buffers& at, MPI_Comm on, long n) { measured_raw_all_reduce(at.x, on, n); }},
      {"traced", [](buffers& at, MPI_Comm on, long n) { measured_raw_all_reduce(at.x, on, n); }},
      {"vector", [](buffers& at, MPI_Comm on, long n) { measured_raw_vector(at.v, on, n); }},
      {"single",
       [](buffers& at, MPI_Comm on, long n) {
         while (n-- > 0) measured_raw_single(at.x, on);
       }},
      {"broadcast", [](buffers& at, MPI_Comm on, long n) { measured_raw_broadcast(at.x, on, n); }},
      {"all_gather", [](buffers& at, MPI_Comm on, long n) { measured_raw_all_gather(at.x, at.y, on, n); }},
      {"reduce", [](buffers& at, MPI_Comm on, long n) { measured_raw_reduce(at.x, at.y, on, n); }},
      {"reduce_scatter", [](buffers& at, MPI_Comm on, long n) { measured_raw_reduce_scatter(at.x, at.y, on, n); }},
      {"gather", [](buffers& at, MPI_Comm on, long n) { measured_raw_gather(at.x, at.y, on, n); }},
      {"scatter", [](buffers& at, MPI_Comm on, long n) { measured_raw_scatter(at.x, at.y, on, n); }},
      {"all_to_all", [](buffers& at, MPI_Comm on, long n) { measured_raw_all_to_all(at.x, at.y, on, n); }},
      {"send_recv", [](buffers& at, MPI_Comm on, long n) { measured_raw_send_recv(at.x, at.y, on, n); }},
      {"barrier", [](buffers&, MPI_Comm on, long n) { measured_raw_barrier(on, n); }}};
  const std::map<std::string, void (*)(buffers&, mpi_communicator&, long)> library = {
      {"all_reduce", [](buffers& at, mpi_communicator& on, long n) { measured_all_reduce(at.x, on, n); }},
      {"vector", [](buffers& at, mpi_communicator& on, long n) { measured_vector(at.v, on, n); }},
      {"single",
       [](buffers& at, mpi_communicator& on, long n) {
         while (n-- > 0) measured_single(at.x, on);
       }},
      {"broadcast", [](buffers& at, mpi_communicator& on, long n) { measured_broadcast(at.x, on, n); }},
      {"all_gather", [](buffers& at, mpi_communicator& on, long n) { measured_all_gather(at.x, at.y, on, n); }},
      {"reduce", [](buffers& at, mpi_communicator& on, long n) { measured_reduce(at.x, at.y, on, n); }},
      {"reduce_scatter", [](buffers& at, mpi_communicator& on, long n) { measured_reduce_scatter(at.x, at.y, on, n); }},
      {"gather", [](buffers& at, mpi_communicator& on, long n) { measured_gather(at.x, at.y, on, n); }},
      {"scatter", [](buffers& at, mpi_communicator& on, long n) { measured_scatter(at.x, at.y, on, n); }},
      {"all_to_all", [](buffers& at, mpi_communicator& on, long n) { measured_all_to_all(at.x, at.y, on, n); }},
      {"send_recv", [](buffers& at, mpi_communicator& on, long n) { measured_send_recv(at.x, at.y, on, n); }},
      {"barrier", [](buffers&, mpi_communicator& on, long n) { measured_barrier(on, n); }}};
  if (raw.count(wanted) == 0 || (variant != "raw" && variant != "shardkit") || calls < 1) {
    std::fprintf(stderr, "overhead raw|shardkit CASE [calls]; there is no %s %s\n", variant.c_str(), wanted.c_str());
    return 2;
  }
  const auto run = [&](long n) {
    if (variant == "raw") raw.at(wanted)(b, comm, n);
    else if (wanted == "traced") measured_traced(b.x, traced, n);
    else library.at(wanted)(b, world, n);
  };
  run(1);  // what is made at the first call only; its instructions are counted, too
  const long before = allocations;
  run(calls);
  const long after = allocations;
  // A counter that counts nothing, or hooks that nobody calls, would make good figures.
  ::operator delete (::operator new (64, std::align_val_t{64}), std::align_val_t{64});
  ::operator delete(::operator new(64));
  if (allocations != after + 2) return std::fprintf(stderr, "allocations are not counted\n"), 1;
  if (wanted == "traced" && variant != "raw" && (calls_begun < calls || calls_ended != calls_begun))
    return std::fprintf(stderr, "the hooks are not called\n"), 1;
  std::printf("allocations_per_call %.4f\n", static_cast<double>(after - before) / static_cast<double>(calls));
}
