// Decorators and the collective helpers over MPI. What checked<B> finds there fails the job: mpi/checked.cpp.
#include "metadata_cases.hpp"

#include <shardkit/comm/checked.hpp>
#include <shardkit/comm/faulty.hpp>
#include <shardkit/comm/traced.hpp>
#include <support/mpi_world.hpp>

#include <cstddef>
#include <vector>

namespace {

using shardkit::in_place;
using shardkit::sum;

#define ON_MPI(function, name)                                      \
  TEST_CASE("mpi: " name) {                                         \
    metadata::comm_type comm = erase(shardkit_test::mpi().world()); \
    metadata::function(comm);                                       \
  }
METADATA_CASES(ON_MPI)

}  // namespace

TEST_CASE("mpi: a program under all decorators has the results that it has without") {
  shardkit::fault_plan plan;
  plan.longest_jitter = 1e-4;
  metadata::comm_type comm =
      erase(with_faults(erase(with_checks(erase(with_trace(shardkit_test::mpi().world())))), plan));
  const int me = comm.rank(), size = comm.size(), next = (me + 1) % size, previous = (me + size - 1) % size;
  for (const std::size_t count : {std::size_t{0}, std::size_t{5}, std::size_t{20000}}) {
    std::vector<double> x(count, me), y(count, -1), z(count, 1), all(count * static_cast<std::size_t>(size));
    auto early = comm.recv_async(y, previous);  // for a message that is sent after the next collective
    comm.all_reduce(in_place(z), sum);
    comm.send(x, next);
    early.wait();
    auto pending = comm.all_reduce_async(in_place(z), sum);
    comm.all_gather(x, all);
    pending.wait();
    comm.group([&](auto& g) {
      g.broadcast(x, 0);
      g.send(y, next);
      g.recv(shardkit::view(all.data(), count), previous);
    });
    auto child = comm.split(me % 2, -me);
    CHECK(child.all_reduce(1, sum) == (size + 1 - me % 2) / 2);
    CHECK(comm.exchange(me).back() == size - 1);
    for (std::size_t i = 0; i < count; ++i) {
      CHECK(x[i] == 0);
      CHECK(y[i] == previous);
      CHECK(z[i] == size * size);
      CHECK(all[i] == (me + 2 * size - 2) % size);
      if (i == 20) break;
    }
  }
}
