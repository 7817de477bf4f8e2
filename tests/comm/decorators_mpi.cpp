// checked<B> and the collective helpers over MPI.
#include "metadata_cases.hpp"
#include "mutations.hpp"

#include <shardkit/comm/checked.hpp>
#include <shardkit/comm/faulty.hpp>
#include <shardkit/comm/traced.hpp>
#include <support/mpi_world.hpp>

#include <memory>
#include <string>
#include <utility>
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

/// A backend of which many checked communicators can be made, one after another. Their failures stay their own: a
/// launch that has failed is of no use to further cases.
class contained_backend {
 public:
  using space = shardkit::host_space;

  explicit contained_backend(shardkit::mpi_backend base)
      : base_(std::make_shared<shardkit::mpi_backend>(std::move(base))) {}

  int rank() const noexcept { return base_->rank(); }
  int size() const noexcept { return base_->size(); }
  template <class Call>
  auto perform(const Call& call) -> decltype(std::declval<shardkit::mpi_backend&>().perform(call)) {
    base_->perform(call);
  }
  template <class Call>
  auto start(const Call& call) -> decltype(std::declval<shardkit::mpi_backend&>().start(call)) {
    return base_->start(call);
  }
  contained_backend split(int colour, int key, const shardkit::call_site& site) {
    return contained_backend(base_->split(colour, key, site));
  }
  void exchange(const void* in, void* out, std::size_t bytes, const shardkit::call_site& site) {
    base_->exchange(in, out, bytes, site);
  }
  shardkit::control_lane& control() { return base_->control(); }
  void fail(const std::string&) noexcept {}

 private:
  std::shared_ptr<shardkit::mpi_backend> base_;
};

std::string text_of_mismatch(const mutations::mutation& one, mutations::comm_type& comm, bool mutated) {
  try {
    one.make(comm, mutated);
  } catch (const shardkit::mismatch_error& found) {
    return found.what();
  }
  return {};
}

}  // namespace

TEST_CASE("mpi: a program under all decorators has the results that it has without") {
  shardkit::fault_plan plan;
  plan.longest_jitter = 1e-4;
  mutations::comm_type comm =
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

TEST_CASE("mpi: each field that one rank changes is caught, and every rank says who, what and where") {
  auto world = shardkit_test::mpi().world();
  REQUIRE(world.size() > 1);
  const contained_backend backend(std::move(world.backend()));
  const int me = backend.rank(), size = backend.size();
  // One rank is as good as another; all of them would take long where ranks share cores.
  for (int mutated = size == 2 ? 0 : size - 1; mutated < size; ++mutated)
    for (const mutations::mutation& one : mutations::all()) {
      if (one.leaves_others_waiting) continue;
      CAPTURE(one.what);
      CAPTURE(mutated);
      mutations::comm_type comm =
          erase(with_checks(shardkit::communicator<contained_backend>(contained_backend(backend), "contained")));
      const std::string text = text_of_mismatch(one, comm, me == mutated);
      CAPTURE(text);
      CHECK(text.find("rank " + std::to_string(mutated) + " ") != std::string::npos);
      CHECK(text.find("right.cpp:10") != std::string::npos);
      CHECK(text.find("wrong.cpp:20") != std::string::npos);
      // What the ranks have told each other and not read is not for the next communicator. It has been sent before the
      // first note, on the same way; what is sent after the second is for the next.
      using topic = shardkit::control_topic;
      shardkit::control_lane& lane = comm.control();
      const auto meet = [&] {
        for (int peer = 0; peer < size; ++peer) lane.post(peer, topic::user, {});
        for (int peer = 0; peer < size; ++peer) (void)lane.take(peer, topic::user);
      };
      meet();
      shardkit::control_lane::blob unread;
      for (int peer = 0; peer < size; ++peer)
        while (lane.poll(peer, topic::fingerprint, unread)) {
        }
      meet();
    }
}
