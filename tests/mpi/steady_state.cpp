// After the first calls of a kind, no call allocates: counted for our own allocations (operator new), not for those
// that the MPI library makes inside itself with malloc.
#include <doctest/doctest.h>
#include <shardkit/backends/mpi.hpp>
#include "support/counted_heap.hpp"
#include "support/mpi_world.hpp"

#include <cstddef>
#include <vector>

using namespace shardkit;

namespace {

// What a rank hands to the verbs.
struct buffers {
  explicit buffers(mpi_communicator& comm)
      : world(comm),
        twin(comm.split(0)),
        size(static_cast<std::size_t>(comm.size())),
        next((comm.rank() + 1) % comm.size()),
        previous((comm.rank() + comm.size() - 1) % comm.size()),
        layout(partition::balanced(count, comm.size())),
        squares(partition::balanced(size * size, comm.size())),
        all(size * 3),
        mine(layout.count(comm.rank())) {}

  static constexpr std::size_t count = 5000;
  mpi_communicator& world;
  mpi_communicator twin;
  std::size_t size;
  int next, previous;
  partition layout, squares;
  std::vector<float> small = std::vector<float>(3), whole = std::vector<float>(count),
                     other = std::vector<float>(count);
  std::vector<float> all, mine;
  std::vector<bfloat16> halves = std::vector<bfloat16>(count);
  view<float> square() { return {whole.data(), size * size}; }
  view<float> other_square() { return {other.data(), size * size}; }
};

template <class Calls>
void check_steady(Calls calls) {
  auto world = shardkit_test::mpi().world();
  buffers b(world);
  for (int warm_up = 0; warm_up < 5; ++warm_up) calls(b);
  const long before = counted_heap::own_allocations;
  for (int repeat = 0; repeat < 3; ++repeat) calls(b);
  CHECK(counted_heap::own_allocations == before);
}

}  // namespace

TEST_CASE("no verb allocates once it has been called") {
  check_steady([](buffers& b) {
    auto& world = b.world;
    world.barrier();
    world.broadcast(b.whole, 0);
    world.all_reduce(in_place(b.whole), sum);
    world.all_reduce(b.whole, b.other, average);
    world.all_reduce(in_place(b.small), by_rank(sum));
    world.all_reduce(in_place(b.halves), average);
    world.reduce(in_place(b.whole), sum, 0);
    world.reduce(in_place(b.whole), maximum, 0);
    world.all_gather(b.small, b.all);
    world.all_gather(in_place(b.all));
    world.all_gather(b.mine, b.whole, b.layout);
    world.gather(b.small, b.all, 0);
    world.gather(b.mine, b.whole, b.layout, 0);
    world.scatter(b.all, b.small, 0);
    world.scatter(b.whole, b.mine, b.layout, 0);
    world.reduce_scatter(b.all, b.small, sum);
    world.reduce_scatter(b.whole, b.mine, sum, b.layout);
    world.reduce_scatter(b.whole, b.mine, minimum, b.layout);
    world.all_to_all(b.square(), b.other_square());
    world.all_to_all(b.square(), b.squares, b.other_square(), b.squares);
    world.send_recv(b.small, b.next, view(b.other.data(), 3), b.previous);
    world.group([&](auto& g) {
      g.recv(b.other, b.previous);
      g.send(b.whole, b.next);
      g.all_reduce(in_place(b.small), sum);
    });
    world.group([&](auto& g) {
      g.all_reduce(in_place(b.small), sum);
      g.with(b.twin).all_reduce(in_place(b.whole), maximum);
    });
  });
}

TEST_CASE("no started verb allocates once it has been called") {
  check_steady([](buffers& b) {
    auto& world = b.world;
    world.barrier_async().wait();
    world.broadcast_async(b.whole, 0).wait();
    world.all_reduce_async(in_place(b.whole), sum).wait();
    world.all_reduce_async(b.whole, b.other, average).wait();
    world.all_reduce_async(in_place(b.small), by_rank(sum)).wait();
    world.all_reduce_async(in_place(b.halves), average).wait();
    world.reduce_async(in_place(b.whole), sum, 0).wait();
    world.reduce_async(in_place(b.whole), maximum, 0).wait();
    world.all_gather_async(b.small, b.all).wait();
    world.all_gather_async(in_place(b.all)).wait();
    world.all_gather_async(b.mine, b.whole, b.layout).wait();
    world.gather_async(b.small, b.all, 0).wait();
    world.gather_async(b.mine, b.whole, b.layout, 0).wait();
    world.scatter_async(b.all, b.small, 0).wait();
    world.scatter_async(b.whole, b.mine, b.layout, 0).wait();
    world.reduce_scatter_async(b.all, b.small, sum).wait();
    world.reduce_scatter_async(b.whole, b.mine, sum, b.layout).wait();
    world.reduce_scatter_async(b.whole, b.mine, minimum, b.layout).wait();
    world.all_to_all_async(b.square(), b.other_square()).wait();
    world.all_to_all_async(b.square(), b.squares, b.other_square(), b.squares).wait();
    world.send_recv_async(b.small, b.next, view(b.other.data(), 3), b.previous).wait();
    world
        .group_async([&](auto& g) {
          g.recv(b.other, b.previous);
          g.send(b.whole, b.next);
          g.all_reduce(in_place(b.small), sum);
          g.reduce_scatter(b.all, view(b.mine.data(), 3), by_rank(sum));
        })
        .wait();
    world
        .group_async([&](auto& g) {
          g.all_reduce(in_place(b.small), sum);
          g.with(b.twin).all_reduce(in_place(b.whole), maximum);
        })
        .wait();
    // Several at once, completed in another order.
    request incoming = world.recv_async(b.other, b.previous);
    request most = world.all_reduce_async(in_place(b.small), maximum);
    request outgoing = world.send_async(b.whole, b.next);
    request total = world.all_reduce_async(in_place(b.all), sum);
    total.wait();
    while (!outgoing.test()) {
    }
    incoming.wait();
    most.wait();
  });
}
