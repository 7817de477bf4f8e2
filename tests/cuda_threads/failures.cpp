// What goes wrong on thread ranks over CUDA memory: every rank gets an error that tells who and why, nothing hangs,
// nothing leaks, and a rank's buffers are its own again when its call has thrown and its stream has come to its end.
#include "ranks.hpp"

#include <atomic>
#include <string>
#include <vector>

namespace {

using namespace cuda_threads_test;

std::string what_is_thrown(const std::function<void()>& action) {
  try {
    action();
  } catch (const std::exception& failure) {
    return failure.what();
  }
  return {};
}
bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

/// on_devices with ranks that do not end well.
void expect_failure(const placement& where, const std::function<void(thread_communicator&)>& body) {
  on_devices(where, [&](thread_communicator& threads) {
    try {
      body(threads);
    } catch (const error&) {
    }
  });
}

}  // namespace

TEST_CASE("A reduction without a kernel is an error that names the remedy, on every rank") {
  on_devices({2, 1}, [](thread_communicator& threads) {
    auto world = cuda_thread_world(threads);
    const cuda_stream stream;
    const auto x = on_device_now(std::vector<float>(4), stream);
    device_buffer<float> all(8), y(4);
    world.all_gather(x, all, stream);
    const std::string text = what_is_thrown([&] { world.all_reduce(x, y, sum, stream); });
    CHECK(contains(text, "cuda_thread_options::ordered_reduce is null; set it to &cuda_ordered_reduce"));
    synchronize(stream, 20);
  });
}

TEST_CASE("A workspace that holds no element of each rank is refused") {
  on_devices({2, 2, false}, [](thread_communicator& threads) {
    if (!shardkit_double::active()) return;
    auto options = with_kernel();
    options.workspace_bytes = threads.rank() == 0 ? 32 : 0;
    auto world = cuda_thread_world(threads, options);
    const cuda_stream stream;
    auto x = on_device_now(std::vector<float>(4), stream);
    CHECK(contains(what_is_thrown([&] { world.all_reduce(in_place(x), sum, stream); }), "bytes at least"));
  });
}

TEST_CASE("Ranks that make different calls are told of each other") {
  on_devices({3, 2}, [](thread_communicator& threads) {
    auto world = cuda_thread_world(threads, with_kernel());
    const cuda_stream stream;
    auto x = on_device_now(std::vector<float>(6), stream);
    const std::string text = what_is_thrown([&] {
      if (threads.rank() == 1) world.broadcast(x, 0, stream);
      else world.all_reduce(in_place(x), sum, stream);
    });
    CHECK(contains(text, "ranks make different calls"));
    CHECK(contains(text, "failures.cpp"));
    synchronize(stream, 20);
  });
}

TEST_CASE("Messages and unequal blocks of different sizes are told on both sides") {
  on_devices({2, 2}, [](thread_communicator& threads) {
    auto world = cuda_thread_world(threads, with_kernel());
    const cuda_stream stream;
    auto x = on_device_now(std::vector<float>(6), stream);
    const std::string text = what_is_thrown([&] {
      if (threads.rank() == 0) world.send(x, 1, stream);
      else world.recv(view<float, cuda_space>(x.data(), 5), 0, stream);
    });
    CHECK(contains(text, "message sizes differ"));
  });
  on_devices({2, 2}, [](thread_communicator& threads) {
    auto world = cuda_thread_world(threads, with_kernel());
    const cuda_stream stream;
    auto x = on_device_now(std::vector<float>(4), stream);
    device_buffer<float> y(4);
    const auto sent = partition::from_bounds({0, 3, 4});
    const std::string text = what_is_thrown([&] { world.all_to_all(x, sent, y, partition::balanced(4, 2), stream); });
    CHECK(contains(text, "which expects 2"));
  });
}

TEST_CASE("A message to oneself that would wait for ever is refused") {
  on_devices({1, 1}, [](thread_communicator& threads) {
    auto world = cuda_thread_world(threads, with_kernel());
    const cuda_stream stream;
    const auto x = on_device_now(std::vector<float>(4), stream);
    CHECK(contains(what_is_thrown([&] { world.send(x, 0, stream); }), "waits for ever"));
  });
}

TEST_CASE("A rank that stays away ends its peers' waits, by its departure or at the deadline") {
  for (const bool leaves : {true, false}) {
    CAPTURE(leaves);
    shardkit_double::set_device_count(2);
    std::vector<std::string> texts(3);
    std::atomic<int> failed{0};
    launch_options options;
    options.limits.operation = leaves ? 20 : 2;  // the ranks have to meet in time before
    options.on_failure = nullptr;
    CHECK_THROWS_AS(run_ranks(3, options,
                              [&](thread_communicator& threads) {
                                const int devices = shardkit_double::active() ? 2 : cuda_device_count();
                                cuda_check(cudaSetDevice(threads.rank() % devices), "cudaSetDevice");
                                auto world = cuda_thread_world(threads, with_kernel());
                                const cuda_stream stream;
                                auto x = on_device_now(std::vector<float>(6), stream);
                                if (threads.rank() == 1) {
                                  if (leaves) return;
                                  while (failed.load() < 2) detail::sleep_seconds(0.01);
                                  return;
                                }
                                try {
                                  if (threads.rank() == 0) world.all_reduce(in_place(x), sum, stream);
                                  else world.recv(x, 1, stream);
                                } catch (const error& failure) {
                                  texts[static_cast<std::size_t>(threads.rank())] = failure.what();
                                  ++failed;
                                  synchronize(stream, 20);
                                  throw;
                                }
                              }),
                    error);
    for (const int rank : {0, 2}) CHECK(contains(texts[static_cast<std::size_t>(rank)], "rank 1"));
    for (const auto& one : shardkit_double::reset()) FAIL_CHECK(one.text);
  }
}

TEST_CASE("synchronize hears of a peer that has failed") {
  on_devices({2, 1}, [](thread_communicator& threads) {
    auto world = cuda_thread_world(threads, with_kernel());
    const cuda_stream stream;
    threads.barrier();
    if (threads.rank() == 1) {
      world.fail("a reason");
      return;
    }
    const std::string text = what_is_thrown([&] {
      for (;;) synchronize(stream, 20, world);
    });
    CHECK(contains(text, "a reason"));
  });
}

TEST_CASE("A request that is dropped ends the call, and its buffer is free when its stream is done") {
  const auto drop = [](thread_communicator& threads) {
    auto world = cuda_thread_world(threads, with_kernel());
    const cuda_stream stream;
    auto x = on_device_now(std::vector<float>(1000), stream);
    device_buffer<float> y(1000);
    if (threads.rank() == 0) {
      const request dropped = world.send_async(x, 1, stream);
      threads.barrier();
    } else {
      threads.barrier();
      CHECK(!what_is_thrown([&] {
               world.recv(y, 0, stream);
               world.barrier(stream);
             }).empty());
    }
    synchronize(stream, 20);
  };
  // Where the receiver was quick the request was complete; else the launch is told that it was dropped.
  const std::string text = what_is_thrown([&] { expect_failure({2, 2}, drop); });
  CHECK((text.empty() || contains(text, "was dropped before it completed")));
}

TEST_CASE("Where a receiver fails behind its copy, the sender's stream goes on after the copy all the same") {
  if (!shardkit_double::active()) return;
  for (const int nth : {1, 2}) {
    CAPTURE(nth);
    std::atomic<int> there{0};
    expect_failure({2, 2}, [&](thread_communicator& threads) {
      auto world = cuda_thread_world(threads, with_kernel());
      const cuda_stream stream;
      auto x = on_device_now(std::vector<float>(50), stream);
      if (threads.rank() == 1) shardkit_double::fail_call("cudaEventRecord", nth, cudaErrorUnknown, 1);
      try {
        if (threads.rank() == 0) world.send(x, 1, stream);
        else world.recv(x, 0, stream);
        CHECK(threads.rank() == 0);
      } catch (const error&) {
      }
      cuda_space::fill_bytes(x.data(), 1, 50 * sizeof(float), stream);
      // What a thread has waited for comes before everything once the thread has ended.
      for (++there; there < 2;) detail::sleep_seconds(0.001);
      cuda_check(cudaStreamSynchronize(stream.handle()), "cudaStreamSynchronize");
    });
  }
}

// Whatever call of CUDA fails, and on whichever rank: errors everywhere, and buffers that may be freed.
TEST_CASE("Any failing CUDA call ends every rank's call, and nothing uses its buffers afterwards") {
  if (!shardkit_double::active()) return;
  for (const std::string function :
       {"cudaEventRecord", "cudaStreamWaitEvent", "cudaMemcpyAsync", "cudaLaunchHostFunc", "cudaStreamGetCaptureInfo",
        "cudaEventCreateWithFlags", "cudaDeviceEnablePeerAccess"}) {
    CAPTURE(function);
    const bool in_making = contains(function, "Create") || contains(function, "Enable");
    bool reached = true;
    for (int nth = 1; reached && nth < 100; nth = nth < 8 ? nth + 1 : nth + 3) {
      CAPTURE(nth);
      std::atomic<int> failures{0};
      expect_failure({3, 3}, [&](thread_communicator& threads) {
        if (in_making && threads.rank() == 1) shardkit_double::fail_call(function, nth, cudaErrorUnknown, 1);
        threads.barrier();
        try {
          auto world = cuda_thread_world(threads, with_kernel());
          const int me = threads.rank();
          const cuda_stream stream;
          device_buffer<float> x(50), all(150), y(50);
          cuda_space::fill_bytes(x.data(), 0, 50 * sizeof(float), stream);
          cuda_space::fill_bytes(y.data(), 0, 50 * sizeof(float), stream);
          synchronize(stream, 20);
          threads.barrier();
          if (!in_making && me == 1) shardkit_double::fail_call(function, nth, cudaErrorUnknown, 1);
          threads.barrier();
          try {
            world.all_gather(x, all, stream);
            world.all_reduce(in_place(x), sum, stream);
            world.send_recv(x, (me + 1) % 3, y, (me + 2) % 3, stream);
            world.barrier(stream);
          } catch (const error&) {
            ++failures;
          }
          // An engine goes on with its buffers behind what its stream holds, or waits for that and frees them.
          cuda_space::fill_bytes(x.data(), 1, 50 * sizeof(float), stream);
          cuda_check(cudaStreamSynchronize(stream.handle()), "cudaStreamSynchronize");
        } catch (const error&) {
          ++failures;
        }
      });
      reached = failures.load() != 0;
      if (reached) CHECK(failures.load() == 3);
    }
    CHECK_FALSE(reached);
  }
}
