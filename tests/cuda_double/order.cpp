// What orders two accesses, and what does not: decided when the later one is queued, whatever the timing.
#include <cuda_double/support.hpp>

#include <atomic>
#include <thread>

using namespace cuda_double_test;

namespace {

struct way {
  const char* name;
  unsigned stream_flags;
  bool orders;
  void (*between)(two_streams&);
};

const way ways[] = {
    {"nothing", cudaStreamNonBlocking, false, [](two_streams&) {}},
    {"an event that the reader waits for", cudaStreamNonBlocking, true,
     [](two_streams& t) {
       OK(cudaEventRecord(t.event, t.first));
       OK(cudaStreamWaitEvent(t.second, t.event, 0));
     }},
    {"an event recorded too early", cudaStreamNonBlocking, false,
     [](two_streams& t) {
       OK(cudaStreamSynchronize(t.first));
       OK(cudaEventRecord(t.event, t.first));
       t.write(t.first);
       OK(cudaStreamWaitEvent(t.second, t.event, 0));
     }},
    {"an event that was never recorded", cudaStreamNonBlocking, false,
     [](two_streams& t) { OK(cudaStreamWaitEvent(t.second, t.event, 0)); }},
    {"an event recorded on the reader's stream", cudaStreamNonBlocking, false,
     [](two_streams& t) {
       OK(cudaEventRecord(t.event, t.second));
       OK(cudaStreamWaitEvent(t.second, t.event, 0));
     }},
    {"a wait of the writer", cudaStreamNonBlocking, false,
     [](two_streams& t) {
       OK(cudaEventRecord(t.event, t.first));
       OK(cudaStreamWaitEvent(t.first, t.event, 0));
     }},
    {"a synchronised stream", cudaStreamNonBlocking, true, [](two_streams& t) { OK(cudaStreamSynchronize(t.first)); }},
    {"the other stream synchronised", cudaStreamNonBlocking, false,
     [](two_streams& t) { OK(cudaStreamSynchronize(t.second)); }},
    {"a synchronised event", cudaStreamNonBlocking, true,
     [](two_streams& t) {
       OK(cudaEventRecord(t.event, t.first));
       OK(cudaEventSynchronize(t.event));
     }},
    {"a stream asked until it is done", cudaStreamNonBlocking, true,
     [](two_streams& t) {
       while (cudaStreamQuery(t.first) == cudaErrorNotReady) {
       }
     }},
    {"an event asked until it is done", cudaStreamNonBlocking, true,
     [](two_streams& t) {
       OK(cudaEventRecord(t.event, t.first));
       while (cudaEventQuery(t.event) == cudaErrorNotReady) {
       }
     }},
    {"a synchronised device", cudaStreamNonBlocking, true, [](two_streams&) { OK(cudaDeviceSynchronize()); }},
    {"work on the default stream between blocking streams", cudaStreamDefault, true,
     [](two_streams&) {
       OK(cudaLaunchHostFunc(
           nullptr, [](void*) {}, nullptr));
     }},
    {"work on the default stream between non-blocking streams", cudaStreamNonBlocking, false,
     [](two_streams&) {
       OK(cudaLaunchHostFunc(
           nullptr, [](void*) {}, nullptr));
       OK(cudaStreamSynchronize(nullptr));
     }},
    {"memory freed on the same device", cudaStreamNonBlocking, true,
     [](two_streams&) { OK(cudaFree(device_memory(1))); }},
    {"two blocking streams", cudaStreamDefault, false, [](two_streams&) {}},
    {"the synchronised default stream and blocking streams", cudaStreamDefault, true,
     [](two_streams&) { OK(cudaStreamSynchronize(nullptr)); }},
    {"a third stream in the middle", cudaStreamNonBlocking, true,
     [](two_streams& t) {
       const cudaStream_t third = new_stream();
       OK(cudaEventRecord(t.event, t.first));
       OK(cudaStreamWaitEvent(third, t.event, 0));
       OK(cudaEventRecord(t.event, third));
       OK(cudaStreamWaitEvent(t.second, t.event, 0));
       OK(cudaStreamDestroy(third));
     }},
};

}  // namespace

TEST_CASE("two accesses on two streams are a race unless events or synchronisations order them") {
  for (const way& w : ways) {
    CAPTURE(w.name);
    for (const bool write_first : {true, false}) {
      CAPTURE(write_first);
      session s;
      two_streams t(w.stream_flags);
      write_first ? t.write(t.first) : t.read(t.first);
      w.between(t);
      write_first ? t.read(t.second) : t.write(t.second);
      if (w.orders) expect_no_report();
      else
        expect_report(report_kind::race, {"stream #1 of device 0", "stream #2 of device 0", "device 0 allocation #1"});
    }
  }
}

TEST_CASE("reading twice, other bytes, and interleaved columns are no race") {
  session s;
  two_streams t;
  t.write(t.first);
  OK(cudaStreamSynchronize(t.first));
  float* c = device_memory(t.count);
  t.read(t.first);
  OK(cudaMemcpyAsync(c, t.a, t.bytes, cudaMemcpyDeviceToDevice, t.second));
  expect_no_report();
  OK(cudaDeviceSynchronize());
  OK(cudaMemsetAsync(t.a, 0, t.bytes / 2, t.first));
  OK(cudaMemsetAsync(t.a + t.count / 2, 0, t.bytes / 2, t.second));
  expect_no_report();
  OK(cudaDeviceSynchronize());
  OK(cudaMemset2DAsync(t.a, 32, 0, 16, 8, t.first));
  OK(cudaMemset2DAsync(t.a + 4, 32, 0, 16, 8, t.second));
  expect_no_report();
  OK(cudaMemset2DAsync(t.a + 3, 32, 0, 4, 8, t.second));
  expect_report(report_kind::race, {"cudaMemset2DAsync"});
  OK(cudaDeviceSynchronize());
  OK(cudaFree(c));
}

TEST_CASE("pinned and managed memory are watched as device memory is") {
  if (thread_sanitizer_watches) return;
  session s;
  const cudaStream_t first = new_stream(), second = new_stream();
  float* pinned = pinned_memory(8);
  void* managed = nullptr;
  OK(cudaMallocManaged(&managed, 32, cudaMemAttachGlobal));
  float* device = device_memory(16);
  OK(cudaMemcpyAsync(device, pinned, 32, cudaMemcpyHostToDevice, first));
  OK(cudaMemcpyAsync(pinned, device + 8, 32, cudaMemcpyDeviceToHost, second));
  expect_report(report_kind::race, {"pinned allocation"});
  OK(cudaDeviceSynchronize());
  OK(cudaMemsetAsync(managed, 0, 32, first));
  OK(cudaMemcpyAsync(device, managed, 32, cudaMemcpyDefault, second));
  expect_report(report_kind::race, {"managed allocation"});
  OK(cudaDeviceSynchronize());
  OK(cudaFreeHost(pinned));
  OK(cudaFree(managed));
  OK(cudaFree(device));
  OK(cudaStreamDestroy(first));
  OK(cudaStreamDestroy(second));
}

TEST_CASE("cudaMemcpy from pageable memory returns before the bytes have arrived, from pinned memory after") {
  session s;
  two_streams t;
  const std::vector<float> pageable(t.count, 1.0f);
  OK(cudaMemcpy(t.a, pageable.data(), t.bytes, cudaMemcpyHostToDevice));
  t.read(t.first);
  expect_report(report_kind::race, {"cudaMemcpy on the default stream"});
  OK(cudaDeviceSynchronize());
  float* pinned = pinned_memory(t.count);
  OK(cudaMemcpy(t.a, pinned, t.bytes, cudaMemcpyHostToDevice));
  t.read(t.first);
  expect_no_report();
  OK(cudaDeviceSynchronize());
  OK(cudaMemcpy(t.b, t.a, t.bytes, cudaMemcpyDeviceToDevice));  // the host does not wait for this one
  OK(cudaMemsetAsync(t.b, 0, t.bytes, t.first));
  expect_report(report_kind::race, {"cudaMemcpy on the default stream"});
  OK(cudaDeviceSynchronize());
  OK(cudaFreeHost(pinned));
}

TEST_CASE("memory of cudaMallocAsync is ordered by its stream") {
  session s;
  two_streams t;
  void* memory = nullptr;
  OK(cudaMallocAsync(&memory, 64, t.first));
  OK(cudaMemsetAsync(memory, 0, 64, t.first));
  expect_no_report();
  OK(cudaMemsetAsync(memory, 0, 64, t.second));
  expect_report(report_kind::race, {"cudaMemsetAsync on stream #1"});
  OK(cudaFreeAsync(memory, t.first));
  expect_report(report_kind::race, {"cudaFreeAsync on stream #1"});
  CHECK(cudaMemsetAsync(memory, 0, 64, t.first) == cudaErrorInvalidValue);
  expect_report(report_kind::use_after_free, {"freed by cudaFreeAsync"});
}

TEST_CASE("what one thread waited for orders the others, or only itself where threads are strict") {
  for (const bool strict : {false, true}) {
    CAPTURE(strict);
    session s;
    shardkit_double::set_threads_order_by_events_only(strict);
    two_streams t;
    t.write(t.first);
    OK(cudaStreamSynchronize(t.first));
    // A thread knows what those before it knew, and what it waited for is known when it has been joined.
    std::thread([&t] {
      t.read(t.second);
      OK(cudaStreamSynchronize(t.second));
    }).join();
    t.write(t.first);
    expect_no_report();

    OK(cudaStreamSynchronize(t.first));
    std::thread other([&t] {
      t.write(t.second);
      OK(cudaStreamSynchronize(t.second));
      t.read(t.first);
      expect_no_report();
      OK(cudaStreamSynchronize(t.first));
    });
    other.join();
  }
  // Two threads alive at once, of which one only knows.
  for (const bool strict : {false, true}) {
    CAPTURE(strict);
    session s;
    shardkit_double::set_threads_order_by_events_only(strict);
    two_streams t;
    std::atomic<int> turn{0};
    std::thread other([&] {
      OK(cudaSetDevice(0));
      turn = 1;
      while (turn != 2) std::this_thread::yield();
      t.read(t.second);
      turn = 3;
      while (turn != 4) std::this_thread::yield();
    });
    while (turn != 1) std::this_thread::yield();
    t.write(t.first);
    OK(cudaStreamSynchronize(t.first));
    turn = 2;
    while (turn != 3) std::this_thread::yield();
    if (strict) expect_report(report_kind::race);
    else expect_no_report();
    turn = 4;
    other.join();
  }
}

TEST_CASE("the per-thread default stream is a blocking stream of its thread") {
  session s;
  two_streams t(cudaStreamDefault);
  t.write(cudaStreamPerThread);
  t.read(nullptr);
  expect_no_report();
  OK(cudaDeviceSynchronize());
  t.write(cudaStreamPerThread);
  std::thread([&t] { t.read(cudaStreamPerThread); }).join();
  expect_report(report_kind::race, {"per-thread default stream"});
}
