// What is special to MPI on device memory: the pieces, what is waited for, on which stream, and what is refused.
#include "cuda_aware_mpi.hpp"

#include <doctest/doctest.h>
#include <double/control.hpp>
#include <shardkit/backends/mpi_cuda.hpp>
#include <shardkit/core/buffer.hpp>
#include <shardkit/cuda/copy.hpp>
#include <shardkit/cuda/stream.hpp>
#include <shardkit/cuda/synchronize.hpp>
#include <support/expect_clean.hpp>
#include <support/mpi_world.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>
#include <string>
#include <vector>

namespace {

// Made by this program's own code; the double is a library of its own.
long own_allocations = 0;
extern "C" char __executable_start, etext;
[[gnu::noinline]] void* allocated(void* memory, void* caller) {
  if (memory == nullptr) throw std::bad_alloc();
  if (caller >= static_cast<void*>(&__executable_start) && caller < static_cast<void*>(&etext)) ++own_allocations;
  return memory;
}

}  // namespace

[[gnu::noinline]] void* operator new(std::size_t bytes) {
  return allocated(std::malloc(bytes == 0 ? 1 : bytes), __builtin_return_address(0));
}
[[gnu::noinline]] void* operator new(std::size_t bytes, const std::nothrow_t&) noexcept {  // as std::stable_sort does
  return allocated(std::malloc(bytes == 0 ? 1 : bytes), __builtin_return_address(0));
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

using namespace shardkit;

namespace {

using device_buffer = buffer<std::uint32_t, cuda_space>;
constexpr std::size_t smallest = 4096;
constexpr double deadline = 20;

std::uint32_t element(int rank, std::size_t i) {
  return static_cast<std::uint32_t>(rank + 1) * 1000003u + static_cast<std::uint32_t>(i) * 17u;
}
std::vector<std::uint32_t> elements(int rank, std::size_t count, std::size_t first = 0) {
  std::vector<std::uint32_t> all(count);
  for (std::size_t i = 0; i < count; ++i) all[i] = element(rank, first + i);
  return all;
}
std::vector<std::uint32_t> sums(int ranks, std::size_t count, std::size_t first = 0) {
  std::vector<std::uint32_t> all(count);
  for (int rank = 0; rank < ranks; ++rank)
    for (std::size_t i = 0; i < count; ++i) all[i] += element(rank, first + i);
  return all;
}

device_buffer on_device(const std::vector<std::uint32_t>& content, cudaStream_t stream) {
  device_buffer device(content.size());
  copy(device, content, stream);
  synchronize(stream, deadline);
  return device;
}
std::vector<std::uint32_t> on_host(const device_buffer& device, cudaStream_t stream) {
  std::vector<std::uint32_t> host(device.size());
  copy(host, device, stream);
  synchronize(stream, deadline);
  return host;
}

/// At the end of a case, nothing may be wrong and nothing left over.
struct clean_machine {
  ~clean_machine() { shardkit_test::expect_clean(); }
};

int around(int rank, int size) { return (rank + size) % size; }

}  // namespace

TEST_CASE("counts around the size of a piece arrive whole") {
  const clean_machine machine;
  auto host = shardkit_test::mpi().world();
  auto world = mpi_cuda_world(host, {.staging_bytes = smallest});
  const cuda_stream stream;
  const int size = world.size(), rank = world.rank(), next = around(rank + 1, size), previous = around(rank - 1, size);
  const auto ranks = static_cast<std::size_t>(size);
  shardkit_double::set_schedule({shardkit_double::order::jitter, 3});
  // Pieces of a message, of an all_reduce, of an all_gather.
  const std::size_t message = smallest / 2 / 4, reduced = message / 2, gathered = message / ranks;
  for (const std::size_t piece : {message, reduced, gathered})
    for (const std::size_t count : {piece - 1, piece, piece + 1, 2 * piece - 1, 2 * piece, 2 * piece + 1, 3 * piece + 1,
                                    std::size_t{1009}, std::size_t{1}, std::size_t{0}}) {
      CAPTURE(piece);
      CAPTURE(count);
      const device_buffer mine = on_device(elements(rank, count), stream.handle());
      device_buffer got(count), all(count * ranks);
      world.all_reduce(mine, got, sum, stream);
      CHECK(on_host(got, stream.handle()) == sums(size, count));

      world.all_gather(mine, all, stream);
      std::vector<std::uint32_t> wanted;
      for (int r = 0; r < size; ++r)
        for (const std::uint32_t one : elements(r, count)) wanted.push_back(one);
      CHECK(on_host(all, stream.handle()) == wanted);

      world.reduce_scatter(all, got, sum, stream);
      for (std::uint32_t& one : wanted) one *= static_cast<std::uint32_t>(size);
      const auto begin = wanted.begin() + rank * static_cast<std::ptrdiff_t>(count);
      CHECK(on_host(got, stream.handle()) ==
            std::vector<std::uint32_t>(begin, begin + static_cast<std::ptrdiff_t>(count)));

      world.send_recv(mine, next, got, previous, stream);
      CHECK(on_host(got, stream.handle()) == elements(previous, count));

      // The last rank has nearly everything.
      std::vector<std::size_t> counts(ranks, count / 7);
      counts.back() = count;
      const partition layout = partition::from_counts(counts);
      const device_buffer part = on_device(elements(rank, layout.count(rank)), stream.handle());
      device_buffer whole(layout.total()), back(layout.count(rank));
      world.gather(part, whole, layout, size - 1, stream);
      world.scatter(whole, back, layout, size - 1, stream);
      CHECK(on_host(back, stream.handle()) == elements(rank, layout.count(rank)));
      world.broadcast(whole, size - 1, stream);
      world.reduce_scatter(whole, back, sum, layout, stream);
      auto scattered = elements(rank, layout.count(rank));
      for (std::uint32_t& one : scattered) one *= static_cast<std::uint32_t>(size);
      CHECK(on_host(back, stream.handle()) == scattered);
    }
}

TEST_CASE("calls on different streams use the same staging memory one after the other") {
  const clean_machine machine;
  auto host = shardkit_test::mpi().world();
  auto world = mpi_cuda_world(host, {.staging_bytes = smallest});
  shardkit_double::set_schedule({shardkit_double::order::late, 0});
  const cuda_stream one, two;
  const std::size_t count = 1500;
  device_buffer first = on_device(elements(world.rank(), count), one.handle());
  device_buffer second = on_device(elements(world.rank(), count, count), one.handle());
  for (int round = 0; round < 3; ++round) {
    device_buffer first_sum(count), second_sum(count);
    world.all_reduce(first, first_sum, sum, one);
    world.all_reduce(second, second_sum, sum, two);
    world.broadcast(first_sum, 0, one);
    CHECK(on_host(first_sum, one.handle()) == sums(world.size(), count));
    CHECK(on_host(second_sum, two.handle()) == sums(world.size(), count, count));
  }
  device_buffer left(count);
  {
    auto short_lived = mpi_cuda_world(host, {.staging_bytes = smallest});
    short_lived.all_reduce(first, left, sum, one);  // the device still reads its staging memory
  }
  CHECK(on_host(left, one.handle()) == sums(world.size(), count));
}

TEST_CASE("a started call runs on its communication stream and is joined by the compute stream") {
  const clean_machine machine;
  auto host = shardkit_test::mpi().world();
  auto world = mpi_cuda_world(host, {.staging_bytes = smallest});
  shardkit_double::set_schedule({shardkit_double::order::jitter, 5});
  const cuda_stream compute, communication;
  const std::size_t count = 4001;
  const auto mine = elements(world.rank(), count);
  device_buffer gradients(count), copied(count);
  copy(gradients, mine, compute);  // the backward pass
  request pending =
      world.all_reduce_async(in_place(gradients), sum, cuda_space::fork{compute.handle(), communication.handle()});
  world.barrier(compute);  // other calls go on beside it
  pending.wait();
  cuda_space::copy(copied.data(), gradients.data(), count * 4, compute.handle());  // the optimiser
  CHECK(on_host(copied, compute.handle()) == sums(world.size(), count));
}

TEST_CASE("what is collective on the host does not overtake started calls of which MPI has not got all pieces") {
  const clean_machine machine;
  auto host = shardkit_test::mpi().world();
  auto world = mpi_cuda_world(host, {.staging_bytes = smallest});
  shardkit_double::set_schedule({shardkit_double::order::late, 0});
  const cuda_stream stream;
  const std::size_t count = 3001;
  const device_buffer mine = on_device(elements(world.rank(), count), stream.handle());
  device_buffer got(count);
  for (int what = 0; what < 4; ++what) {
    CAPTURE(what);
    request pending = world.all_reduce_async(mine, got, sum, stream);
    if (world.is_root()) (void)pending.test();  // which is further with its pieces than the others
    if (what == 0) CHECK(world.exchange(world.rank()).back() == world.size() - 1);
    if (what == 1) CHECK(world.split(0).size() == world.size());
    if (what == 2) (void)world.control();
    if (what == 3) world.barrier(stream);
    const auto waited_for = mpi_cuda_test::collectives_so_far();
    pending.wait();
    // MPI matches the collectives of a communicator in the order in which each rank makes them.
    if (what < 3) CHECK(waited_for.started_before_waiting == mpi_cuda_test::collectives_so_far().started);
    CHECK(on_host(got, stream.handle()) == sums(world.size(), count));
  }
}

TEST_CASE("streams and devices are never synchronised, and a receive does not wait for its stream") {
  const clean_machine machine;
  auto host = shardkit_test::mpi().world();
  auto world = mpi_cuda_world(host);
  const cuda_stream stream, other;
  const int rank = world.rank(), size = world.size();
  const std::size_t count = 1000;
  const device_buffer mine = on_device(elements(rank, count), stream.handle());
  device_buffer got(count);
  shardkit_double::set_schedule({shardkit_double::order::late, 0});
  if (size > 1 && rank == size - 1) {
    shardkit_double::set_stalled(shardkit_double::current_device(), true);
    world.recv(got, 0, stream);
    CHECK(cudaStreamQuery(stream.handle()) == cudaErrorNotReady);
    shardkit_double::set_stalled(shardkit_double::current_device(), false);
  } else if (size > 1 && rank == 0) {
    world.send(mine, size - 1, stream);
  }
  if (size > 1 && rank == size - 1) CHECK(on_host(got, stream.handle()) == elements(0, count));
  world.all_reduce(mine, got, maximum, stream);
  CHECK(on_host(got, stream.handle()) == elements(size - 1, count));
  for (const char* function : {"cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "cudaMemcpy"})
    CHECK_MESSAGE(shardkit_double::calls(function) == 0, function);
}

TEST_CASE("while a piece is with MPI the next one is copied, and no third") {
  auto host = shardkit_test::mpi().world();
  if (host.size() < 2) return;
  const clean_machine machine;
  constexpr std::size_t piece = std::size_t{1} << 20;  // no transport takes it without its receive
  auto world = mpi_cuda_world(host, {.staging_bytes = 2 * piece});
  const cuda_stream stream;
  const std::size_t count = 5 * piece / 4 - 3;
  if (world.rank() == 0) {
    const device_buffer mine = on_device(elements(0, count), stream.handle());
    const int before = shardkit_double::calls("cudaMemcpyAsync");
    request pending = world.send_async(mine, 1, stream);
    for (int i = 0; i < 100; ++i) CHECK(!pending.test());
    CHECK(shardkit_double::calls("cudaMemcpyAsync") == before + 2);
    host.barrier();
    pending.wait();
    CHECK(shardkit_double::calls("cudaMemcpyAsync") == before + 5);
  } else {
    device_buffer got(world.rank() == 1 ? count : 0);
    host.barrier();
    if (world.rank() == 1) world.recv(got, 0, stream);
    if (world.rank() == 1) CHECK(on_host(got, stream.handle()) == elements(0, count));
  }
}

TEST_CASE("a steady state allocates nothing: no memory, pinned memory or events") {
  const clean_machine machine;
  auto host = shardkit_test::mpi().world();
  auto world = mpi_cuda_world(host, {.staging_bytes = smallest});
  const cuda_stream stream, communication;
  const int size = world.size(), rank = world.rank(), next = around(rank + 1, size), previous = around(rank - 1, size);
  const auto ranks = static_cast<std::size_t>(size);
  const std::size_t count = 1500;
  const partition layout = partition::balanced(count, size), squares = partition::balanced(ranks * ranks * 300, size);
  device_buffer whole = on_device(elements(rank, count), stream.handle()), other(count), all(count * ranks);
  device_buffer mine = on_device(elements(rank, layout.count(rank)), stream.handle());
  device_buffer square = on_device(elements(rank, squares.total()), stream.handle()), turned(squares.total());
  buffer<bfloat16, cuda_space> halves(count);
  fill_zero(halves, stream);
  const auto calls = [&] {
    world.barrier(stream);
    world.broadcast(whole, 0, stream);
    world.all_reduce(in_place(whole), sum, stream);
    world.all_reduce(in_place(halves), average, stream);
    world.reduce(whole, other, by_rank(sum), 0, stream);
    world.all_gather(whole, all, stream);
    world.all_gather(mine, other, layout, stream);
    world.gather(mine, other, layout, 0, stream);
    world.scatter(whole, mine, layout, 0, stream);
    world.reduce_scatter(all, other, sum, stream);
    world.reduce_scatter(whole, mine, sum, layout, stream);
    world.all_to_all(square, turned, stream);
    world.all_to_all(square, squares, turned, squares, stream);
    world.send_recv(whole, next, other, previous, stream);
    world.group(
        [&](auto& g) {
          g.recv(other, previous);
          g.send(whole, next);
        },
        stream);
    world.all_reduce_async(in_place(whole), sum, cuda_space::fork{stream.handle(), communication.handle()}).wait();
  };
  const auto made = [] {
    return shardkit_double::calls("cudaMallocHost") + shardkit_double::calls("cudaEventCreateWithFlags") +
           shardkit_double::calls("cudaMalloc");
  };
  // Which pieces are under way together depends on time, and so does which of the pooled calls has grown already.
  int quiet = 0;
  for (int round = 0; round < 100 && quiet < 5; ++round) {
    const int made_before = made();
    const long before = own_allocations;
    calls();
    const long after = own_allocations;
    const int grown = after != before || made() != made_before;
    quiet = host.all_reduce(grown, maximum) == 0 ? quiet + 1 : 0;
  }
  CHECK(quiet == 5);
  synchronize(stream, deadline, world);
}

TEST_CASE("MPI gets device memory where it says that it takes it, behind what the stream holds, and nowhere else") {
  const clean_machine machine;
  auto host = shardkit_test::mpi().world();
  const int size = host.size(), rank = host.rank();
  const std::size_t count = 3001;
  for (const bool aware : {false, true}) {
    CAPTURE(aware);
    mpi_cuda_test::set_cuda_aware(aware);
    auto world = mpi_cuda_world(host, {.staging = aware ? staging::forbidden : staging::allowed});
    mpi_cuda_test::set_cuda_aware(false);
    CHECK(world.backend().is_direct() == aware);
    shardkit_double::set_schedule({shardkit_double::order::late, 0});
    const cuda_stream stream;
    const auto own = elements(rank, count);
    const auto ranks = static_cast<std::size_t>(size);
    device_buffer mine(count), got(count), all(count * ranks);
    const long before = mpi_cuda_test::device_buffers();
    const int copies = shardkit_double::calls("cudaMemcpyAsync");
    copy(mine, own, stream);  // each call has to wait for it, or for the one before
    world.all_reduce(mine, got, sum, stream);
    world.all_gather(got, all, stream);
    world.broadcast(got, size - 1, stream);
    if (size > 1) world.send_recv(mine, around(rank + 1, size), got, around(rank - 1, size), stream);
    CHECK((mpi_cuda_test::device_buffers() != before) == aware);
    if (aware) CHECK(shardkit_double::calls("cudaMemcpyAsync") == copies + 1);
    CHECK(on_host(got, stream.handle()) == (size > 1 ? elements(around(rank - 1, size), count) : own));
    std::vector<std::uint32_t> wanted;
    for (int r = 0; r < size; ++r)
      for (const std::uint32_t one : sums(size, count)) wanted.push_back(one);
    CHECK(on_host(all, stream.handle()) == wanted);
  }
  for (const char* function : {"cudaStreamSynchronize", "cudaDeviceSynchronize", "cudaEventSynchronize", "cudaMemcpy"})
    CHECK_MESSAGE(shardkit_double::calls(function) == 0, function);
}

TEST_CASE("forbidden staging is refused on every rank where MPI does not take device memory") {
  auto host = shardkit_test::mpi().world();
  CHECK_THROWS_WITH_AS(
      mpi_cuda_world(host, {.aware = mpi_cuda_aware::no, .staging = staging::forbidden}),
      doctest::Contains("staging is forbidden, and MPI does not say that it takes device memory; use an MPI library"),
      usage_error);
  const auto of_rank = host.rank() == 0 ? mpi_cuda_aware::yes : mpi_cuda_aware::no;
  if (host.size() > 1)
    CHECK_THROWS_WITH_AS(mpi_cuda_world(host, {.aware = of_rank, .staging = staging::forbidden}),
                         doctest::Contains("staging is forbidden"), usage_error);
  CHECK_THROWS_WITH_AS(mpi_cuda_world(host, {.staging_bytes = host.rank() == 0 ? 100 : smallest}),
                       doctest::Contains("100; "), usage_error);
  CHECK(host.all_reduce(1, sum) == host.size());
}
