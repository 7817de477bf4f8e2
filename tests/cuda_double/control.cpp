// Faults, schedules, host functions, and machines without a GPU.
#include <cuda_double/support.hpp>

#include <atomic>
#include <thread>

using namespace cuda_double_test;
using shardkit_double::order;

TEST_CASE("the n-th call fails or is dropped, on one device if asked, and calls are counted") {
  session s;
  two_streams t;
  shardkit_double::fail_call("cudaMemsetAsync", 2, cudaErrorIllegalAddress);
  OK(cudaMemsetAsync(t.a, 0, 4, t.first));
  CHECK(cudaMemsetAsync(t.a, 0, 4, t.first) == cudaErrorIllegalAddress);
  CHECK(cudaPeekAtLastError() == cudaErrorIllegalAddress);
  CHECK(cudaGetLastError() == cudaErrorIllegalAddress);
  CHECK(cudaGetLastError() == cudaSuccess);
  OK(cudaMemsetAsync(t.a, 0, 4, t.first));
  CHECK(shardkit_double::calls("cudaMemsetAsync") == 3);
  shardkit_double::fail_call("cudaGetDevice", 1, cudaErrorUnknown, 1);
  int device = -1;
  OK(cudaGetDevice(&device));
  OK(cudaSetDevice(1));
  CHECK(cudaGetDevice(&device) == cudaErrorUnknown);
  OK(cudaGetDevice(&device));
  CHECK(device == 1);
  CHECK(shardkit_double::calls("cudaGetDevice", 0) == 1);
  CHECK(shardkit_double::calls("cudaGetDevice", 1) == 2);
  OK(cudaSetDevice(0));

  OK(cudaEventRecord(t.event, t.first));
  shardkit_double::drop_call("cudaStreamWaitEvent", 1);
  OK(cudaStreamWaitEvent(t.second, t.event, 0));
  t.read(t.second);
  expect_report(report_kind::race);
}

TEST_CASE("an error of a device stays until it is taken away") {
  session s;
  two_streams t;
  shardkit_double::set_device_error(0, cudaErrorLaunchFailure);
  CHECK(cudaMemsetAsync(t.a, 0, 4, t.first) == cudaErrorLaunchFailure);
  CHECK(cudaStreamQuery(t.first) == cudaErrorLaunchFailure);
  CHECK(cudaGetLastError() == cudaErrorLaunchFailure);
  CHECK(cudaGetLastError() == cudaErrorLaunchFailure);
  CHECK(cudaGetErrorName(cudaErrorLaunchFailure) == std::string("cudaErrorLaunchFailure"));
  shardkit_double::set_device_error(0, cudaSuccess);
  OK(cudaStreamQuery(t.first));
}

TEST_CASE("a crashing operation breaks its device when it runs, and nothing on it can be freed any more") {
  session s;
  shardkit_double::set_schedule({order::late, 0});
  float* memory = device_memory(8);
  const cudaStream_t stream = new_stream();
  shardkit_double::fail_operation("cudaMemsetAsync", 2, cudaErrorIllegalAddress);
  for (int i = 0; i < 3; ++i) OK(cudaMemsetAsync(memory, 0, 32, stream));
  CHECK(cudaStreamSynchronize(stream) == cudaErrorIllegalAddress);
  CHECK(cudaFree(memory) == cudaErrorIllegalAddress);
  CHECK(cudaStreamDestroy(stream) == cudaErrorIllegalAddress);
  OK(cudaSetDevice(1));
  OK(cudaFree(device_memory(8)));  // other devices are well
}

TEST_CASE("machines without a driver or a device answer as the real library does") {
  session s;
  int count = 17;
  void* memory = nullptr;
  shardkit_double::set_driver_missing(true);
  CHECK(cudaGetDeviceCount(&count) == cudaErrorInsufficientDriver);
  CHECK(count == 17);
  CHECK(cudaMalloc(&memory, 4) == cudaErrorInsufficientDriver);
  OK(cudaDriverGetVersion(&count));
  CHECK(count == 0);
  shardkit_double::set_driver_missing(false);
  shardkit_double::set_device_count(0);
  CHECK(cudaGetDeviceCount(&count) == cudaErrorNoDevice);
  CHECK(cudaMalloc(&memory, 4) == cudaErrorNoDevice);
  shardkit_double::set_device_count(3);
  OK(cudaGetDeviceCount(&count));
  CHECK(count == 3);
  cudaDeviceProp properties{};
  OK(cudaGetDeviceProperties(&properties, 2));
  CHECK(properties.name == std::string("shardkit CUDA double, device 2"));
  int major = 0;
  OK(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 2));
  CHECK(major == properties.major);
}

TEST_CASE("schedules: eager runs at once, late when it is waited for and no more, jitter as its seed says") {
  const auto progress = [](shardkit_double::schedule schedule) {
    session s;
    shardkit_double::set_schedule(schedule);
    shardkit_double::set_idle_time(1000);  // on a busy machine the test may look idle
    two_streams t;
    std::string done;
    for (int i = 0; i < 6; ++i) {
      t.write(t.first);
      OK(cudaMemsetAsync(t.b, 0, t.bytes, t.second));
      OK(cudaEventRecord(t.event, t.first));
      done += cudaEventQuery(t.event) == cudaSuccess ? '1' : '0';
    }
    OK(cudaStreamSynchronize(t.first));
    done += cudaStreamQuery(t.second) == cudaSuccess ? '1' : '0';
    return done;
  };
  CHECK(progress({order::eager, 0}) == "1111111");
  CHECK(progress({order::late, 0}) == "0000000");
  const std::string jittered = progress({order::jitter, 3});
  CHECK(progress({order::jitter, 3}) == jittered);
  bool differs = false;
  for (std::uint64_t seed = 4; seed < 12; ++seed) differs = differs || progress({order::jitter, seed}) != jittered;
  CHECK(differs);
}

TEST_CASE("a host function runs in its place in the stream, on another thread, and may not call CUDA") {
  session s;
  two_streams t;
  struct seen {
    std::thread::id thread;
    float value = 0;
    cudaError_t call = cudaSuccess;
    float* pinned = nullptr;
    std::atomic<bool> ended{false};
  } host;
  host.pinned = pinned_memory(t.count);
  t.write(t.first);
  OK(cudaMemcpyAsync(host.pinned, t.a, t.bytes, cudaMemcpyDeviceToHost, t.first));
  OK(cudaLaunchHostFunc(
      t.first,
      [](void* data) {
        seen& mine = *static_cast<seen*>(data);
        mine.thread = std::this_thread::get_id();
        mine.value = mine.pinned[1];
        mine.call = cudaGetDevice(nullptr);
        mine.pinned[1] = 4;
        mine.ended = true;
      },
      &host));
  OK(cudaMemcpyAsync(t.b, host.pinned, t.bytes, cudaMemcpyHostToDevice, t.first));
  while (!host.ended) std::this_thread::yield();  // nobody calls CUDA: it runs all the same
  OK(cudaStreamSynchronize(t.first));
  CHECK(host.thread != std::this_thread::get_id());
  CHECK(host.value == 0.0f);
  CHECK(host.call == cudaErrorNotPermitted);
  expect_report(report_kind::bad_argument, {"cudaGetDevice is called in a host function"});
  OK(cudaMemcpy(host.pinned, t.b, t.bytes, cudaMemcpyDeviceToHost));
  CHECK(host.pinned[1] == 4.0f);
  OK(cudaFreeHost(host.pinned));
}

TEST_CASE("a stalled device makes no progress until it goes on") {
  session s;
  two_streams t;
  shardkit_double::set_stalled(0, true);
  t.write(t.first);
  for (int i = 0; i < 20; ++i) CHECK(cudaStreamQuery(t.first) == cudaErrorNotReady);
  shardkit_double::set_stalled(0, false);
  OK(cudaStreamSynchronize(t.first));
}

TEST_CASE("events measure time where they were made for it") {
  session s;
  two_streams t;
  cudaEvent_t start = nullptr, end = nullptr;
  OK(cudaEventCreate(&start));
  OK(cudaEventCreate(&end));
  OK(cudaEventRecord(start, t.first));
  t.write(t.first);
  OK(cudaEventRecord(end, t.first));
  OK(cudaEventSynchronize(end));
  float milliseconds = -1;
  OK(cudaEventElapsedTime(&milliseconds, start, end));
  CHECK(milliseconds >= 0.0f);
  OK(cudaEventRecord(t.event, t.first));
  CHECK(cudaEventElapsedTime(&milliseconds, start, t.event) == cudaErrorInvalidResourceHandle);
  expect_report(report_kind::bad_argument, {"cudaEventElapsedTime"});
  OK(cudaEventDestroy(start));
  OK(cudaEventDestroy(end));
}
