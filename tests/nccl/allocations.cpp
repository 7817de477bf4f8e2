// A program of its own, because it counts what is taken from the heap: nothing in a steady state of NCCL calls. It is
// linked with a NCCL and a CUDA runtime whose calls return at once and take nothing themselves (tests/double/stub).
#include <doctest/doctest.h>
#include <shardkit/backends/nccl.hpp>
#include <shardkit/core/buffer.hpp>
#include <support/counted_heap.hpp>

#include <cstddef>
#include <vector>

namespace {

using namespace shardkit;

/// The ranks of which this one is there: the stub does not mind.
class one_of final : public bootstrap {
 public:
  explicit one_of(int ranks) : ranks_(ranks) {}
  int rank() const noexcept override { return 0; }
  int size() const noexcept override { return ranks_; }
  blob broadcast(const blob& mine) override { return mine; }
  void barrier() override {}

 private:
  int ranks_;
};

struct buffers {
  explicit buffers(int ranks)
      : n(static_cast<std::size_t>(ranks)),
        x(12 * n),
        y(12 * n),
        whole(12 * n * n),
        turned(12 * n * n),
        even(partition::balanced(12 * n, ranks)),
        uneven(partition::balanced(12 * n - 1, ranks)) {}
  std::size_t n;
  buffer<float, cuda_space> x, y, whole, turned;
  partition even, uneven;
};

void every_verb(nccl_communicator& comm, nccl_communicator& other, buffers& b, cuda_space::stream stream,
                cuda_space::stream beside) {
  const int me = comm.rank(), ranks = comm.size(), next = (me + 1) % ranks, previous = (me + ranks - 1) % ranks;
  const auto x = view_of(b.x), y = view_of(b.y);
  comm.barrier(stream);
  comm.broadcast(b.x, 0, stream);
  comm.all_reduce(in_place(b.x), sum, stream);
  comm.all_reduce(b.x, b.y, by_rank(average), stream);
  comm.reduce(b.x, b.y, sum, me, stream);
  comm.reduce(in_place(b.x), maximum, 0, stream);
  comm.all_gather(b.x, b.whole, stream);
  comm.all_gather(in_place(b.whole), stream);
  comm.reduce_scatter(b.whole, b.y, sum, stream);
  comm.gather(b.x, b.whole, me, stream);
  comm.scatter(b.whole, b.x, me, stream);
  comm.all_to_all(b.whole, b.turned, stream);
  comm.send(b.x, next, stream);
  comm.recv(b.y, previous, stream);
  comm.send_recv(b.x, next, b.y, previous, stream);
  for (const partition* layout : {&b.even, &b.uneven}) {
    const auto all = x.subview(0, layout->total()), mine = y.subview(0, layout->count(me));
    comm.all_gather(mine, all, *layout, stream);
    comm.reduce_scatter(all, mine, sum, *layout, stream);
    comm.reduce_scatter(all, mine, by_rank(sum), *layout, stream);
    comm.gather(mine, all, *layout, me, stream);
    comm.scatter(all, mine, *layout, me, stream);
    comm.all_to_all(all, *layout, y.subview(0, layout->total()), *layout, stream);
  }
  comm.all_reduce_async(in_place(b.x), sum, shardkit::fork{stream, beside}).wait();
  request pending[] = {comm.all_gather_async(b.x, b.whole, shardkit::fork{stream, beside}),
                       comm.send_recv_async(b.x, next, b.y, previous, shardkit::fork{stream, beside})};
  wait_all(pending, 2);
  const auto listed = [&](auto& g) {
    g.all_reduce(in_place(b.x), sum);
    g.send(b.x, next);
    g.recv(b.y, previous);
    g.all_gather(y.subview(0, b.uneven.count(me)), x.subview(0, b.uneven.total()), b.uneven);
    g.with(other).broadcast(b.whole, 0);
  };
  comm.group(listed, stream);
  comm.group_async(listed, shardkit::fork{stream, beside}).wait();
  comm.throw_if_failed();
}

}  // namespace

TEST_CASE("in a steady state no call of NCCL's takes anything from the heap, whatever the library lacks") {
  for (const int ranks : {2, 3, 8})
    for (const bool old : {false, true}) {
      CAPTURE(ranks);
      CAPTURE(old);
      nccl_options options;
      options.ordered_reduce = [](reduction_kind, dtype, const void*, int, void*, std::size_t, cudaStream_t) {};
      options.workspace_bytes = 64 * static_cast<std::size_t>(ranks);
      if (old) options.api.get_version = [](int* version) { return *version = 21903, ncclSuccess; };
      one_of start(ranks), start_other(ranks);
      auto comm = nccl_world(start, options), other = nccl_world(start_other, options);
      const cuda_stream stream, beside;
      buffers all(ranks);
      for (int round = 0; round < 3; ++round) every_verb(comm, other, all, stream, beside);
      const long before = counted_heap::own_allocations;
      for (int round = 0; round < 20; ++round) every_verb(comm, other, all, stream, beside);
      CHECK(counted_heap::own_allocations == before);
      const std::vector<int> counted(3);  // the counter counts
      CHECK(counted_heap::own_allocations > before);
    }
}
