// An engine's own all_reduce over thread ranks on CUDA memory: what the predicate chooses goes to it, and its buffer
// is handed out before a GEMM writes to it.
#include "ranks.hpp"

#include <shardkit/comm/overlay.hpp>

#include <memory>
#include <vector>

namespace {

using namespace cuda_threads_test;

/// A one-shot all_reduce: every rank has a buffer that all may read; who calls writes it, unless the input lies there
/// already, and combines all of them.
class one_shot {
 public:
  static constexpr std::size_t capacity = 4096;

  explicit one_shot(thread_communicator& threads) : shared_(std::make_shared<shared>(threads)) {}

  void perform(const all_reduce_call& call) {
    shared& my = *shared_;
    ++my.calls;
    const cuda_space::stream stream = cuda_space::from_native(call.stream);
    const std::size_t bytes = call.count * size_of(call.type);
    if (call.in != my.buffer.data()) {
      ++my.copies;
      cuda_space::copy(my.buffer.data(), call.in, bytes, stream);
    }
    my.meet(my.ready, stream);
    std::vector<const void*> inputs;
    for (const mark& one : my.all) inputs.push_back(one.buffer);
    void* output = call.out;
    reduce_on_host(call.op.kind, call.type, inputs.data(), my.threads.size(), &output, 1, call.count, stream);
    my.meet(my.done, stream);
  }
  void* reduce_input(std::size_t bytes) { return bytes <= capacity ? shared_->buffer.data() : nullptr; }

  int calls() const { return shared_->calls; }
  int copies() const { return shared_->copies; }

 private:
  struct mark {
    const void* buffer;
  };
  struct shared {
    explicit shared(thread_communicator& of) : threads(of), buffer(capacity), all(of.exchange(mark{buffer.data()})) {}

    void meet(const cuda_event& mine, cuda_space::stream stream) {
      mine.record(stream);
      for (const cudaEvent_t one : threads.exchange(mine.handle())) cuda_event_view{one}.order_before(stream);
      threads.barrier();
    }

    thread_communicator& threads;
    device_buffer<unsigned char> buffer;
    std::vector<mark> all;
    cuda_event ready, done;
    int calls = 0, copies = 0;
  };
  std::shared_ptr<shared> shared_;
};

}  // namespace

TEST_CASE("An engine's own all_reduce takes the calls that its predicate chooses") {
  for (const placement& where : {placement{2, 1}, {3, 3}}) {
    on_devices(where, [](thread_communicator& threads) {
      const one_shot fast(threads);
      auto world =
          with_overlay(cuda_thread_world(threads, with_kernel()), fast, [](reduction op, dtype, std::size_t bytes) {
            return op.kind == reduction_kind::sum && bytes <= one_shot::capacity;
          });
      const cuda_stream stream;
      const auto size = static_cast<float>(threads.size());

      // A GEMM writes its partial sums to the plug-in's own buffer.
      auto partial = world.backend().reduce_input<float>(100);
      REQUIRE(partial.size() == 100);
      const std::vector<float> ones(100, 1.0f);
      cuda_space::copy(partial.data(), ones.data(), 100 * sizeof(float), stream);
      device_buffer<float> out(100);
      world.all_reduce(partial, out, sum, stream);
      CHECK(fetched(out, stream, world) == std::vector<float>(100, size));
      CHECK(fast.calls() == 1);
      CHECK(fast.copies() == 0);

      // Buffers of the engine's are taken as well; what the predicate leaves goes to the ranks below.
      auto x = on_device_now(std::vector<float>(100, 2.0f), stream);
      world.all_reduce(x, out, sum, stream);
      CHECK(fetched(out, stream, world) == std::vector<float>(100, 2 * size));
      CHECK(fast.copies() == 1);
      world.all_reduce(in_place(x), maximum, stream);
      CHECK(fetched(x, stream, world) == std::vector<float>(100, 2.0f));
      auto large = on_device_now(std::vector<float>(5000, 1.0f), stream);
      world.all_reduce(in_place(large), sum, stream);
      CHECK(fetched(large, stream, world) == std::vector<float>(5000, size));
      CHECK(fast.calls() == 2);
      CHECK(world.backend().reduce_input<float>(5000).empty());
      CHECK(world.backend().reduce_input<float>(100, maximum).empty());
      threads.barrier();
    });
  }
}

TEST_CASE("Thread ranks are a plug-in themselves: the one-shot all_reduce of another communicator over the same GPUs") {
  on_devices({2, 2}, [](thread_communicator& threads) {
    auto fast = cuda_thread_world(threads, with_kernel(), "one-shot");
    auto world = with_overlay(cuda_thread_world(threads), std::move(fast.backend()),
                              [](reduction, dtype, std::size_t bytes) { return bytes <= 1024; });
    const cuda_stream stream;
    auto x = on_device_now(std::vector<float>(64, 1.0f), stream);
    world.all_reduce(in_place(x), sum, stream);
    CHECK(fetched(x, stream, world) == std::vector<float>(64, 2.0f));
    auto large = on_device_now(std::vector<float>(512, 1.0f), stream);
    threads.barrier();
    CHECK_THROWS_AS(world.all_reduce(in_place(large), sum, stream), error);  // the one below has no kernel
  });
}
