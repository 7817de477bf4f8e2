// Calls captured into CUDA graphs: a graph holds what the same sequence by hand would hold, and nothing waits, asks or
// allocates while it is captured.
#include "ranks.hpp"

#include <string>
#include <vector>

namespace {

using namespace nccl_test;

/// A graph made of what `record()` enqueues.
class captured {
 public:
  template <class Record>
  captured(cudaStream_t stream, Record record) {
    cuda_check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture", stream);
    record();
    cuda_check(cudaStreamEndCapture(stream, &graph_), "cudaStreamEndCapture", stream);
    cuda_check(cudaGraphInstantiate(&instance_, graph_, 0), "cudaGraphInstantiate");
  }
  captured(const captured&) = delete;
  captured& operator=(const captured&) = delete;
  ~captured() {
    if (instance_ != nullptr) (void)cudaGraphExecDestroy(instance_);
    if (graph_ != nullptr) (void)cudaGraphDestroy(graph_);
  }

  void launch(cudaStream_t stream) const { cuda_check(cudaGraphLaunch(instance_, stream), "cudaGraphLaunch", stream); }
  std::size_t nodes() const {
    std::size_t count = 0;
    cuda_check(cudaGraphGetNodes(graph_, nullptr, &count), "cudaGraphGetNodes");
    return count;
  }
  /// Its nodes as the double tells them.
  std::string text() const { return shardkit_double::graph_text(graph_); }

 private:
  cudaGraph_t graph_ = nullptr;
  cudaGraphExec_t instance_ = nullptr;
};

float of(int number) { return static_cast<float>(number); }

/// Calls of these functions on this device so far.
int calls_that_wait_or_allocate(int device) {
  int all = 0;
  for (const char* function :
       {"cudaMalloc", "cudaMallocHost", "cudaHostAlloc", "cudaMallocManaged", "cudaFree", "cudaFreeHost",
        "cudaStreamQuery", "cudaEventQuery", "cudaStreamSynchronize", "cudaEventSynchronize", "cudaDeviceSynchronize",
        "cudaStreamCreateWithPriority", "cudaEventCreateWithFlags", "cudaPointerGetAttributes"})
    all += shardkit_double::calls(function, device);
  return all;
}

}  // namespace

TEST_CASE("a captured sequence gives its results at every replay") {
  for (int ranks : rank_counts({1, 2, 3})) {
    on_devices(ranks, [](thread_communicator& host) {
      auto world = nccl_world(host, options_with_kernel());
      auto other = world.split(0, -host.rank());
      const int size = host.size(), me = host.rank();
      const auto n = static_cast<std::size_t>(size);
      cuda_stream stream;
      const auto layout = partition::balanced(3 * n + 1, size);
      auto x = on_device_now(std::vector<float>(8, 1.0f), stream.handle());
      device_buffer<float> all(8 * n), ring(8), part(layout.count(me)), cut(layout.total()), turned(n), row(n);
      cuda_space::fill_bytes(cut.data(), 0, cut.size() * sizeof(float), stream);
      cuda_space::fill_bytes(row.data(), 0, row.size() * sizeof(float), stream);
      synchronize(stream, 20, world);
      const int before = calls_that_wait_or_allocate(me);
      const captured graph(stream.handle(), [&] {
        world.barrier(stream);
        world.all_reduce(in_place(x), sum, stream);
        world.all_gather(x, all, stream);
        other.send_recv(x, (other.rank() + 1) % size, ring, (other.rank() + size - 1) % size, stream);
        world.reduce_scatter(cut, part, sum, layout, stream);
        world.all_gather(part, cut, layout, stream);
        world.all_to_all(row, turned, stream);
        world.group(
            [&](auto& g) {
              g.broadcast(ring, 0);
              g.with(other).all_reduce(in_place(row), sum);
            },
            stream);
      });
      CHECK(calls_that_wait_or_allocate(me) == before);
      float wanted = 1;
      for (int replay = 0; replay < 3; ++replay) {
        graph.launch(stream.handle());
        wanted *= of(size);
        CHECK(fetched(x, stream.handle(), world, other)[7] == wanted);
        CHECK(fetched(all, stream.handle(), world, other)[8 * n - 1] == wanted);
        CHECK(fetched(ring, stream.handle(), world, other)[0] == wanted);
      }
    });
  }
  expect_clean();
}

TEST_CASE("a graph holds exactly the nodes of the sequence written by hand") {
  if (!shardkit_double::active()) return;
  for (int ranks : rank_counts({1, 2, 3})) {
    on_devices(ranks, [](thread_communicator& host) {
      auto world = nccl_world(host, options_with_kernel());
      const int size = host.size(), me = host.rank();
      const int next = (me + 1) % size, previous = (me + size - 1) % size;
      cuda_stream stream;
      device_buffer<float> x(8), y(8), all(8 * static_cast<std::size_t>(size));
      const nccl_api api = nccl_api::of_program();
      const ncclComm_t comm = world.backend().native_handle();
      const auto settled = [&](ncclResult_t result) {
        while (result == ncclInProgress) REQUIRE(api.comm_get_async_error(comm, &result) == ncclSuccess);
        REQUIRE(result == ncclSuccess);
      };
      const captured ours(stream.handle(), [&] {
        world.all_reduce(in_place(x), sum, stream);
        world.broadcast(y, 0, stream);
        world.send_recv(x, next, y, previous, stream);
        world.all_gather(x, all, stream);
        world.group(
            [&](auto& g) {
              g.all_reduce(in_place(x), average);
              g.reduce(in_place(y), product, 0);
            },
            stream);
      });
      const captured by_hand(stream.handle(), [&] {
        const cudaStream_t on = stream.handle();
        settled(api.all_reduce(x.data(), x.data(), 8, ncclFloat32, ncclSum, comm, on));
        settled(api.broadcast(y.data(), y.data(), 8, ncclFloat32, 0, comm, on));
        settled(api.group_start());
        settled(api.send(x.data(), 8, ncclFloat32, next, comm, on));
        settled(api.recv(y.data(), 8, ncclFloat32, previous, comm, on));
        settled(api.group_end());
        settled(api.all_gather(x.data(), all.data(), 8, ncclFloat32, comm, on));
        settled(api.group_start());
        settled(api.all_reduce(x.data(), x.data(), 8, ncclFloat32, ncclAvg, comm, on));
        settled(api.reduce(y.data(), y.data(), 8, ncclFloat32, ncclProd, 0, comm, on));
        settled(api.group_end());
      });
      CHECK(ours.text() == by_hand.text());
      CHECK(ours.nodes() == by_hand.nodes());
      host.barrier();
    });
  }
  expect_clean();
}

TEST_CASE("a call on two streams is captured with both") {
  for (int ranks : rank_counts({1, 2})) {
    on_devices(ranks, [](thread_communicator& host) {
      auto world = nccl_world(host, options_with_kernel());
      cuda_stream compute, communication;
      auto x = on_device_now(std::vector<float>(8, 1.0f), compute.handle());
      device_buffer<float> y(8);
      const captured graph(compute.handle(), [&] {
        auto pending = world.all_reduce_async(in_place(x), sum, shardkit::fork{compute, communication});
        pending.wait();
        cuda_space::copy(y.data(), x.data(), 8 * sizeof(float), compute);
      });
      graph.launch(compute.handle());
      CHECK(fetched(y, compute.handle(), world)[7] == of(host.size()));
    });
  }
  expect_clean();
}

TEST_CASE("what cannot be captured is refused before anything is recorded") {
  for (int ranks : rank_counts({2})) {
    on_devices(ranks, [](thread_communicator& host) {
      auto world = nccl_world(host, options_with_kernel());
      cuda_stream stream;
      device_buffer<float> x(8);
      std::string text;
      host.barrier();
      const captured graph(stream.handle(), [&] {
        try {
          world.group(
              [&](auto& g) {
                g.all_reduce(in_place(x), sum);
                g.all_reduce(in_place(x), by_rank(sum));
              },
              stream);
        } catch (const error& failure) {
          text = failure.what();
        }
      });
      CHECK(graph.nodes() == 0);
      CHECK_MESSAGE((text.find("cannot be captured into a graph") != std::string::npos ||
                     text.find("failed:") != std::string::npos),
                    text);
    });
  }
  expect_clean();
}
