// A program of its own, because it counts what every thread takes from the heap: nothing in a steady state of calls,
// and after launches that failed as much as before.
#include "on_threads.hpp"

#include "failing_launch.hpp"

#include <shardkit/comm/any_communicator.hpp>
#include <support/counted_heap.hpp>
#include "required_verbs_only.hpp"

#include <atomic>
#include <filesystem>
#include <stdexcept>
#include <thread>
#include <vector>

namespace {

using counted_heap::allocations;
using shardkit::in_place;
using shardkit::partition;
using shardkit::view;

/// Buffers for every verb, made once.
struct buffers {
  std::vector<float> x, y, whole, whole_out;
  partition equal, cut;
  buffers(std::size_t count, int ranks)
      : x(count),
        y(count),
        whole(count * static_cast<std::size_t>(ranks)),
        whole_out(whole.size()),
        equal(partition::balanced(whole.size(), ranks)),
        cut(partition::balanced(count, ranks)) {}
};

/// Every blocking verb once, and groups. `other` has the same ranks.
template <class Comm>
void every_verb(Comm& comm, Comm& other, buffers& b) {
  const int me = comm.rank(), ranks = comm.size(), next = (me + 1) % ranks, previous = (me + ranks - 1) % ranks;
  const auto own = [&](std::vector<float>& all, const partition& cut) {
    return view(all.data() + cut.offset(me), cut.count(me));
  };
  comm.barrier();
  comm.broadcast(b.x, 0);
  comm.all_reduce(in_place(b.x), shardkit::maximum);
  comm.all_reduce(b.x, b.y, by_rank(shardkit::sum));
  comm.all_reduce(1.5, shardkit::minimum);
  comm.reduce(b.x, b.y, shardkit::average, ranks - 1);
  comm.all_gather(b.x, b.whole);
  comm.all_gather(in_place(b.x), b.cut);
  comm.reduce_scatter(b.whole, b.y, shardkit::minimum);
  comm.reduce_scatter(b.x, own(b.y, b.cut), shardkit::sum, b.cut);
  comm.gather(b.x, b.whole, 0);
  comm.gather(own(b.x, b.cut), b.y, b.cut, 0);
  comm.scatter(b.whole, b.y, 0);
  comm.scatter(b.x, own(b.y, b.cut), b.cut, ranks - 1);
  comm.all_to_all(b.whole, b.whole_out);
  comm.all_to_all(b.whole, b.equal, b.whole_out, b.equal);
  comm.send_recv(b.x, next, b.y, previous);
  if (ranks > 1 && me == 0) comm.send(b.x, 1);
  if (me == 1) comm.recv(b.y, 0);
  auto receive = comm.recv_async(b.y, previous);
  auto send = comm.send_async(b.x, next);
  receive.wait();
  while (!send.test()) std::this_thread::yield();
  comm.group([&](auto& g) {
    g.recv(b.y, previous);
    g.all_reduce(in_place(b.whole), shardkit::maximum);
    g.send(b.x, next);
    g.send_recv(view(b.whole_out.data(), 3), next, view(b.whole_out.data() + 3, 3), previous);
    g.gather(own(b.whole, b.equal), b.whole_out, b.equal, 0);
  });
  const auto over_both = [&](auto& g) {
    g.all_reduce(in_place(b.x), shardkit::maximum);
    g.with(other).all_gather(b.y, b.whole);
  };
  comm.group(over_both);
  comm.group_async(over_both).wait();
}

}  // namespace

TEST_CASE("in a steady state no blocking verb takes anything from the heap") {
  enum flavour { plain, erased, composed };
  for (int ranks : {1, 2, 3, 8})
    for (flavour which : {plain, erased, composed})
      for (std::size_t count : {std::size_t{7}, std::size_t{6000}}) {
        CAPTURE(ranks);
        CAPTURE(int(which));
        CAPTURE(count);
        std::atomic<long> before{-1}, after{-1};
        shardkit::run_ranks(ranks, [&](thread_communicator& world) {
          auto comm = world.split(0, 0, "a name that is too long to be stored inside a string");
          buffers all(count, ranks);
          const auto measure = [&](auto measured) {
            auto other = measured.split(0);
            for (int round = 0; round < 30; ++round) every_verb(measured, other, all);
            world.barrier();
            if (world.is_root()) before = allocations.load();
            world.barrier();
            for (int round = 0; round < 20; ++round) every_verb(measured, other, all);
            world.barrier();
            if (world.is_root()) after = allocations.load();
            world.barrier();
          };
          if (which == plain) measure(std::move(comm));
          if (which == erased) measure(shardkit::erase(std::move(comm)));
          if (which == composed) measure(with_composed_verbs(std::move(comm)));
        });
        CHECK(before.load() > 0);
        CHECK(after.load() == before.load());
      }
}

namespace {

long entries(const char* folder) {
  long count = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) count += entry.exists() || true;
  return count;
}
struct resources {
  long live = allocations.load() - counted_heap::releases.load();
  long threads = entries("/proc/self/task");
  long files = entries("/proc/self/fd");
};

// One way to fail after another, in each position.
void fail_somehow(int kind, int round) {
  const int culprit = round % 3;
  const auto result = launch(3, [&](auto& comm, auto&) {
    auto child = comm.split(comm.rank() % 2);
    std::vector<double> x(round % 2 == 0 ? 5 : 4000), y(x.size() + 1);
    auto pending = child.recv_async(y, child.rank());
    comm.all_reduce(in_place(x), shardkit::sum);
    if (comm.rank() == culprit) switch (kind) {
        case 0: throw std::runtime_error("out of luck");
        case 1: throw 3;
        case 2: return;
        case 3: comm.broadcast(x, 17); break;
        case 4: comm.barrier(); break;
        case 5: comm.all_reduce(x, y, shardkit::sum); break;
        case 6:
          comm.group([&](auto& g) {
            g.send(x, culprit);
            g.recv(y, culprit);
          });
          break;
        default: comm.fail("on purpose"); break;
      }
    comm.all_reduce(in_place(x), shardkit::sum);
    comm.barrier();
    pending.wait();
  });
  CHECK(result.thrown != nullptr);
}

}  // namespace

TEST_CASE("two hundred launches that fail leave no memory, thread or file behind") {
  for (int kind = 0; kind < 8; ++kind) fail_somehow(kind, kind);  // what the first use of anything keeps
  const resources before;
  for (int round = 0; round < 200; ++round) {
    fail_somehow(round % 8, round);
    shardkit::run_ranks(3, [](thread_communicator& comm) { CHECK(comm.all_reduce(1, shardkit::sum) == 3); });
  }
  const resources after;
  CHECK(after.live == before.live);
  CHECK(after.threads == before.threads);
  CHECK(after.files == before.files);
}
