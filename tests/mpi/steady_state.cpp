// After the first calls of a kind, no call allocates: counted for our own allocations (operator new), not for those
// that the MPI library makes inside itself with malloc.
#include <doctest/doctest.h>
#include <shardkit/backends/mpi.hpp>
#include "support/mpi_world.hpp"

#include <cstddef>
#include <cstdlib>
#include <new>
#include <vector>

namespace {
thread_local long allocations = 0;
}

[[gnu::noinline]] void* operator new(std::size_t bytes) {
  ++allocations;
  if (void* memory = std::malloc(bytes == 0 ? 1 : bytes)) return memory;
  throw std::bad_alloc();
}
[[gnu::noinline]] void* operator new(std::size_t bytes, std::align_val_t alignment) {
  ++allocations;
  const auto step = static_cast<std::size_t>(alignment);
  if (void* memory = std::aligned_alloc(step, (bytes / step + 1) * step)) return memory;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }

using namespace shardkit;

TEST_CASE("no verb allocates once it has been called") {
  auto world = shardkit_test::mpi().world();
  const auto size = static_cast<std::size_t>(world.size());
  const int next = (world.rank() + 1) % world.size(), previous = (world.rank() + world.size() - 1) % world.size();
  constexpr std::size_t count = 5000;
  const auto layout = partition::balanced(count, world.size());
  const auto squares = partition::balanced(size * size, world.size());
  std::vector<float> small(3), whole(count), other(count), all(size * 3), mine(layout.count(world.rank()));
  std::vector<bfloat16> halves(count);

  const auto every_verb = [&] {
    world.barrier();
    world.broadcast(whole, 0);
    world.all_reduce(in_place(whole), sum);
    world.all_reduce(in_place(small), by_rank(sum));
    world.all_reduce(in_place(halves), average);
    world.reduce(in_place(whole), sum, 0);
    world.reduce(in_place(whole), maximum, 0);
    world.all_gather(small, all);
    world.all_gather(mine, whole, layout);
    world.gather(mine, whole, layout, 0);
    world.scatter(whole, mine, layout, 0);
    world.reduce_scatter(whole, mine, sum, layout);
    world.reduce_scatter(whole, mine, minimum, layout);
    world.all_to_all(view(whole.data(), size * size), squares, view(other.data(), size * size), squares);
    world.send_recv(small, next, view(other.data(), 3), previous);
    world.group([&](auto& g) {
      g.recv(other, previous);
      g.send(whole, next);
      g.all_reduce(in_place(small), sum);
    });
    request incoming = world.recv_async(other, previous);
    request outgoing = world.send_async(whole, next);
    outgoing.wait();
    incoming.wait();
  };
  for (int warm_up = 0; warm_up < 3; ++warm_up) every_verb();
  const long before = allocations;
  for (int repeat = 0; repeat < 3; ++repeat) every_verb();
  CHECK(allocations == before);
}
