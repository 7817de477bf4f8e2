// Calls of thread ranks captured into CUDA graphs: one graph with the streams of all ranks, or an error.
#include "ranks.hpp"

#include <string>
#include <vector>

namespace {

using namespace cuda_threads_test;

/// A graph that one rank captures, the others' streams having joined.
class shared_capture {
 public:
  shared_capture(thread_communicator& threads, cuda_space::stream stream) : threads_(threads), stream_(stream) {
    const cuda_event begun;
    if (threads.is_root()) {
      cuda_check(cudaStreamBeginCapture(stream.handle, cudaStreamCaptureModeRelaxed), "cudaStreamBeginCapture");
      begun.record(stream);
    }
    const auto roots = threads.exchange(begun.handle()).front();
    if (!threads.is_root()) cuda_event_view{roots}.order_before(stream);
    threads.barrier();
  }
  shared_capture(const shared_capture&) = delete;
  shared_capture& operator=(const shared_capture&) = delete;
  /// Brings the streams together again.
  void end() {
    const cuda_event done;
    if (!threads_.is_root()) done.record(stream_);
    const auto all = threads_.exchange(done.handle());
    if (threads_.is_root()) {
      for (std::size_t rank = 1; rank < all.size(); ++rank) cuda_event_view{all[rank]}.order_before(stream_);
      cuda_check(cudaStreamEndCapture(stream_.handle, &graph_), "cudaStreamEndCapture");
      cuda_check(cudaGraphInstantiate(&instance_, graph_, 0), "cudaGraphInstantiate");
    }
    threads_.barrier();
  }
  ~shared_capture() {
    if (instance_ != nullptr) (void)cudaGraphExecDestroy(instance_);
    if (graph_ != nullptr) (void)cudaGraphDestroy(graph_);
  }
  /// The root launches for all.
  void launch() {
    threads_.barrier();
    if (threads_.is_root()) {
      cuda_check(cudaGraphLaunch(instance_, stream_.handle), "cudaGraphLaunch");
      synchronize(stream_, 20);
    }
    threads_.barrier();
  }

 private:
  thread_communicator& threads_;
  cuda_space::stream stream_;
  cudaGraph_t graph_ = nullptr;
  cudaGraphExec_t instance_ = nullptr;
};

}  // namespace

TEST_CASE("One graph holds the calls of all ranks, and gives their results at every replay") {
  for (const placement& where : {placement{1, 1}, {2, 1}, {3, 2}}) {
    on_devices(where, [](thread_communicator& threads) {
      shardkit_double::set_threads_order_by_events_only(false);  // they launch for each other
      auto world = cuda_thread_world(threads, with_kernel());
      const cuda_stream stream, communication;
      const int size = threads.size(), me = threads.rank();
      auto x = on_device_now(std::vector<float>(8, 1.0f), stream);
      device_buffer<float> all(8 * static_cast<std::size_t>(size)), next(8);
      world.all_reduce(in_place(next), maximum, stream);  // a call outside the graph before it
      synchronize(stream, 20, world);
      {
        shared_capture graph(threads, stream);
        world.barrier(stream);
        world.all_gather(x, all, stream);
        world.send_recv(x, (me + 1) % size, next, (me + size - 1) % size, stream);
        world.broadcast_async(next, 0, shardkit::fork{stream, communication}).wait();
        graph.end();
        CHECK(fetched(x, stream)[0] == 1.0f);
        for (int replay = 0; replay < 3; ++replay) {
          const auto value = static_cast<float>(replay * 10 + me);
          const std::vector<float> values(8, value);
          cuda_space::copy(x.data(), values.data(), 8 * sizeof(float), stream);
          synchronize(stream, 20);
          graph.launch();
          CHECK(fetched(all, stream).back() == static_cast<float>(replay * 10 + size - 1));
          CHECK(fetched(next, stream)[0] == static_cast<float>(replay * 10 + size - 1));
        }
      }
      world.all_gather(x, all, stream);  // and one after it
      CHECK(fetched(all, stream, world)[0] == 20.0f);
    });
  }
}

TEST_CASE("A call that only some ranks capture, or each by itself, is refused with nothing recorded") {
  for (const int capturing : {1, 2}) {
    CAPTURE(capturing);
    for (const bool message : {false, true}) {
      on_devices({2, 2}, [&](thread_communicator& threads) {
        auto world = cuda_thread_world(threads, with_kernel());
        const cuda_stream stream;
        device_buffer<float> x(8), all(16);
        const bool captures = threads.rank() < capturing;
        if (captures)
          cuda_check(cudaStreamBeginCapture(stream.handle(), cudaStreamCaptureModeThreadLocal),
                     "cudaStreamBeginCapture");
        threads.barrier();
        std::string text;
        try {
          if (message)
            world.send_recv(x, 1 - threads.rank(), view<float, cuda_space>(all.data(), 8), 1 - threads.rank(), stream);
          else world.all_gather(x, all, stream);
        } catch (const error& failure) {
          text = failure.what();
        }
        CHECK(text.find("captured together or not at all") != std::string::npos);
        if (!captures) return;
        cudaGraph_t graph = nullptr;
        cuda_check(cudaStreamEndCapture(stream.handle(), &graph), "cudaStreamEndCapture");
        std::size_t nodes = 0;
        cuda_check(cudaGraphGetNodes(graph, nullptr, &nodes), "cudaGraphGetNodes");
        CHECK(nodes == 0);
        (void)cudaGraphDestroy(graph);
      });
    }
  }
}
