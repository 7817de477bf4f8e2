// Two threads of each process, with a communicator each: MPI_THREAD_MULTIPLE.
#define DOCTEST_CONFIG_IMPLEMENT
#include <shardkit/testing/mpi_main.hpp>

#include <cstddef>
#include <thread>
#include <vector>

using namespace shardkit;

int main(int argc, char** argv) {
  mpi_options options;
  options.thread_level = MPI_THREAD_MULTIPLE;
  return testing::mpi_main(argc, argv, options);
}

namespace {

// Calls of every kind that have one right answer; the number of wrong ones.
int wrong_answers(mpi_communicator& comm, std::size_t count, int rounds) {
  const int rank = comm.rank(), size = comm.size(), next = (rank + 1) % size, previous = (rank + size - 1) % size;
  const double ranks = size, total = ranks * (ranks - 1) / 2;
  int wrong = 0;
  const auto expect = [&](bool holds) { wrong += !holds; };
  std::vector<double> sum(count), ordered(count), incoming(count), outgoing(count),
      all(count * comm.exchange(0).size());
  for (int round = 0; round < rounds; ++round) {
    sum.assign(count, rank);
    ordered.assign(count, rank);
    outgoing.assign(count, rank + 100.0 * round);
    comm.all_reduce(in_place(sum), shardkit::sum);
    comm.all_reduce(in_place(ordered), by_rank(shardkit::sum));
    expect(sum.back() == total && ordered.back() == total);

    sum.assign(count, rank);
    ordered.assign(count, rank);
    request first = comm.all_reduce_async(in_place(sum), shardkit::sum);
    request second = comm.all_reduce_async(in_place(ordered), by_rank(average));
    request third = comm.send_recv_async(outgoing, next, incoming, previous);
    expect(comm.all_reduce(rank, maximum) == size - 1);
    third.wait();
    while (!second.test()) {
    }
    first.wait();
    expect(sum.back() == total && ordered.back() == total / ranks && incoming.back() == previous + 100.0 * round);

    comm.group([&](auto& g) {
      g.recv(incoming, next);
      g.send(outgoing, previous);
      g.all_gather(outgoing, all);
    });
    expect(incoming.back() == next + 100.0 * round && all.back() == size - 1 + 100.0 * round);
  }
  return wrong;
}

}  // namespace

TEST_CASE("two threads of a process use a communicator each, waiting and starting calls") {
  auto world = testing::mpi().world();
  auto other = world.split(0, -world.rank(), "other");
  const int rounds = world.size() > 2 ? 10 : 50;  // a collective takes milliseconds where ranks outnumber cores
  for (const std::size_t count : {std::size_t{3}, std::size_t{20011}}) {
    int wrong_there = -1;
    std::thread beside([&] { wrong_there = wrong_answers(other, count, rounds); });
    const int wrong_here = wrong_answers(world, count, rounds);
    beside.join();
    CHECK(wrong_here == 0);
    CHECK(wrong_there == 0);
  }
}
