// Memory, handles and devices: what a GPU or a checker for it would find, the double finds on the host.
#include <cuda_double/support.hpp>

#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <csignal>
#include <cstdlib>
#include <set>

using namespace cuda_double_test;

namespace {

volatile float sink;

/// The signal that ends a child process which reads `address`; 0 if it can.
int signal_of_reading(const float* address) {
  const pid_t child = fork();
  if (child == 0) {
    std::signal(SIGSEGV, SIG_DFL);
    std::signal(SIGBUS, SIG_DFL);
    sink = *address;
    _exit(0);
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

}  // namespace

TEST_CASE("the host cannot read device memory, memory behind a pinned allocation, or freed pinned memory") {
  session s;
  float* device = device_memory(10);
  float* pinned = pinned_memory(64);
  CHECK(signal_of_reading(device) == SIGSEGV);
  CHECK(signal_of_reading(pinned + 63) == 0);
  CHECK(signal_of_reading(pinned + 64) == SIGSEGV);
  OK(cudaFree(device));
  OK(cudaFreeHost(pinned));
  CHECK(signal_of_reading(pinned) == SIGSEGV);
}

TEST_CASE("memory of every kind starts as not-a-number") {
  session s;
  double* device = device_memory<double>(3);
  double* pinned = pinned_memory<double>(3);
  void* managed = nullptr;
  OK(cudaMallocManaged(&managed, 24, cudaMemAttachGlobal));
  CHECK(std::isnan(pinned[2]));
  CHECK(std::isnan(static_cast<double*>(managed)[2]));
  pinned[2] = 0;
  OK(cudaMemcpy(pinned, device, 24, cudaMemcpyDeviceToHost));
  CHECK(std::isnan(pinned[2]));
  OK(cudaFree(device));
  OK(cudaFreeHost(pinned));
  OK(cudaFree(managed));
}

TEST_CASE("copies and fills move what they say, in two dimensions too") {
  session s;
  const std::vector<int> from = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
  std::vector<int> to(12, 0);
  int* device = device_memory<int>(12);
  OK(cudaMemcpy(device, from.data(), 48, cudaMemcpyHostToDevice));
  OK(cudaMemset(device + 11, 0, 4));
  // The middle columns of a 3 x 4 matrix.
  OK(cudaMemcpy2D(to.data(), 8, device + 1, 16, 8, 3, cudaMemcpyDeviceToHost));
  CHECK(to == std::vector<int>{2, 3, 6, 7, 10, 11, 0, 0, 0, 0, 0, 0});
  OK(cudaMemcpy(to.data(), device, 48, cudaMemcpyDefault));
  CHECK(to == std::vector<int>{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 0});
  OK(cudaSetDevice(1));
  int* other = device_memory<int>(12);
  OK(cudaMemcpyPeer(other, 1, device, 0, 48));
  OK(cudaDeviceSynchronize());
  to.assign(12, 0);
  OK(cudaMemcpy(to.data(), other, 48, cudaMemcpyDeviceToHost));
  CHECK(to[10] == 11);
  OK(cudaSetDevice(0));
  OK(cudaDeviceSynchronize());
  OK(cudaFree(device));
  OK(cudaFree(other));
}

TEST_CASE("bytes outside an allocation are refused and named") {
  session s;
  two_streams t;
  CHECK(cudaMemsetAsync(t.a, 0, t.bytes + 1, t.first) == cudaErrorInvalidValue);
  expect_report(report_kind::out_of_bounds, {"cudaMemsetAsync writes 257 bytes", "device 0 allocation #1", "end 1"});
  CHECK(cudaMemcpyAsync(t.b, t.a + 1, t.bytes, cudaMemcpyDeviceToDevice, t.first) == cudaErrorInvalidValue);
  expect_report(report_kind::out_of_bounds, {"reads", "allocation #1 + 4"});
  CHECK(cudaMemcpy2DAsync(t.b, 64, t.a, 64, 8, 5, cudaMemcpyDeviceToDevice, t.first) == cudaErrorInvalidValue);
  expect_report(report_kind::out_of_bounds, {"264 bytes"});
  CHECK(cudaMemcpy2DAsync(t.b, 32, t.a, 64, 33, 4, cudaMemcpyDeviceToDevice, t.first) == cudaErrorInvalidPitchValue);
  expect_report(report_kind::bad_argument, {"pitches 32 and 64"});
  CHECK(cudaMemcpyAsync(t.a + 1, t.a, 8, cudaMemcpyDeviceToDevice, t.first) == cudaErrorInvalidValue);
  expect_report(report_kind::bad_argument, {"overlap"});
  CHECK(cudaGetLastError() == cudaErrorInvalidValue);
  CHECK(cudaGetLastError() == cudaSuccess);
}

TEST_CASE("freed memory cannot be used or freed again, and its addresses do not come back") {
  session s;
  const cudaStream_t stream = new_stream();
  float* memory = device_memory(4);
  OK(cudaFree(memory));
  CHECK(cudaMemsetAsync(memory, 0, 4, stream) == cudaErrorInvalidValue);
  expect_report(report_kind::use_after_free, {"freed by cudaFree"});
  CHECK(cudaFree(memory) == cudaErrorInvalidValue);
  expect_report(report_kind::use_after_free, {"freed before"});
  float* next = device_memory(4);
  CHECK(next != memory);
  CHECK(cudaFree(next + 1) == cudaErrorInvalidValue);
  expect_report(report_kind::bad_argument, {"did not allocate"});
  CHECK(cudaFreeHost(next) == cudaErrorInvalidValue);
  expect_report(report_kind::bad_argument);
  OK(cudaFree(next));
  OK(cudaFree(nullptr));
  OK(cudaStreamDestroy(stream));
  shardkit_double::reset();
  CHECK(cudaMemset(memory, 0, 4) == cudaErrorInvalidValue);
  expect_report(report_kind::use_after_free, {"before the last reset"});
}

TEST_CASE("memory freed in flight is reported, and cudaFree drains the device") {
  session s;
  two_streams t;
  float* memory = device_memory(t.count);
  std::vector<float> host(t.count, 0.0f);
  OK(cudaMemsetAsync(memory, 0, t.bytes, t.first));
  OK(cudaMemcpyAsync(host.data(), t.b, t.bytes, cudaMemcpyDeviceToHost, t.second));
  OK(cudaFree(memory));
  expect_report(report_kind::free_in_flight, {"cudaFree of device 0 allocation #3", "cudaMemsetAsync on stream #1"});
  CHECK(std::isnan(host[0]));
  CHECK(cudaStreamQuery(t.second) == cudaSuccess);
}

TEST_CASE("destroyed and invented handles are refused") {
  session s;
  const cudaStream_t stream = new_stream();
  const cudaEvent_t event = new_event();
  OK(cudaStreamDestroy(stream));
  OK(cudaEventDestroy(event));
  CHECK(cudaStreamSynchronize(stream) == cudaErrorInvalidResourceHandle);
  expect_report(report_kind::use_after_free, {"cudaStreamSynchronize", "destroyed stream"});
  CHECK(cudaEventRecord(event, nullptr) == cudaErrorInvalidResourceHandle);
  expect_report(report_kind::use_after_free, {"destroyed event"});
  CHECK(cudaStreamWaitEvent(nullptr, event, 0) == cudaErrorInvalidResourceHandle);
  expect_report(report_kind::use_after_free);
  CHECK(cudaStreamDestroy(stream) == cudaErrorInvalidResourceHandle);
  expect_report(report_kind::use_after_free);
  int anything = 0;
  CHECK(cudaStreamQuery(reinterpret_cast<cudaStream_t>(&anything)) == cudaErrorInvalidResourceHandle);
  expect_report(report_kind::bad_handle, {"unknown stream"});
  cudaStream_t none = nullptr;
  CHECK(cudaStreamCreateWithFlags(&none, 64) == cudaErrorInvalidValue);
  expect_report(report_kind::bad_argument, {"unknown flags 64"});
}

TEST_CASE("streams, events and memory of another device than the current one are refused or reported") {
  session s;
  two_streams t;
  const cudaEvent_t event0 = t.event;
  OK(cudaSetDevice(1));
  const cudaStream_t stream1 = new_stream();
  CHECK(cudaMemsetAsync(t.a, 0, 4, t.first) == cudaErrorInvalidResourceHandle);
  expect_report(report_kind::wrong_device, {"stream #1 of device 0", "device 1 is current"});
  CHECK(cudaEventRecord(event0, stream1) == cudaErrorInvalidResourceHandle);
  expect_report(report_kind::wrong_device, {"event #1 of device 0", "stream #1 of device 1"});
  OK(cudaStreamWaitEvent(stream1, event0, 0));  // across devices is what events are for
  CHECK(cudaMemsetAsync(t.a, 0, 4, stream1) == cudaErrorInvalidValue);
  expect_report(report_kind::wrong_device, {"cudaDeviceEnablePeerAccess was not called"});
  int possible = 0;
  OK(cudaDeviceCanAccessPeer(&possible, 1, 0));
  CHECK(possible == 1);
  OK(cudaDeviceEnablePeerAccess(0, 0));
  OK(cudaMemsetAsync(t.a, 0, 4, stream1));
  OK(cudaStreamSynchronize(stream1));
  CHECK(cudaMemcpyPeerAsync(t.b, 1, t.a, 0, 4, stream1) == cudaErrorInvalidValue);
  expect_report(report_kind::wrong_device, {"cudaMemcpyPeerAsync from device 0 to device 1"});
  CHECK(cudaSetDevice(2) == cudaErrorInvalidDevice);
  expect_report(report_kind::wrong_device, {"device 2 of 2"});
  OK(cudaStreamDestroy(stream1));
  OK(cudaSetDevice(0));
}

TEST_CASE("copies to the wrong side, pageable memory in fills and null pointers are refused") {
  session s;
  two_streams t;
  std::vector<float> host(t.count);
  CHECK(cudaMemcpyAsync(host.data(), t.a, 4, cudaMemcpyHostToDevice, t.first) == cudaErrorInvalidValue);
  expect_report(report_kind::bad_argument, {"cudaMemcpyKind 1"});
  CHECK(cudaMemsetAsync(host.data(), 0, 4, t.first) == cudaErrorInvalidValue);
  expect_report(report_kind::bad_argument, {"pageable memory"});
  CHECK(cudaMemcpyAsync(nullptr, t.a, 4, cudaMemcpyDeviceToHost, t.first) == cudaErrorInvalidValue);
  expect_report(report_kind::bad_argument, {"null pointer"});
  OK(cudaMemcpyAsync(nullptr, nullptr, 0, cudaMemcpyDefault, t.first));
}

TEST_CASE("pointers tell where they lie") {
  session s;
  OK(cudaSetDevice(1));
  float* device = device_memory(4);
  float* pinned = pinned_memory(4);
  float pageable[4] = {};
  cudaPointerAttributes attributes{};
  OK(cudaPointerGetAttributes(&attributes, device + 1));
  CHECK(attributes.type == cudaMemoryTypeDevice);
  CHECK(attributes.device == 1);
  CHECK(attributes.devicePointer == device + 1);
  CHECK(attributes.hostPointer == nullptr);
  OK(cudaPointerGetAttributes(&attributes, pinned));
  CHECK(attributes.type == cudaMemoryTypeHost);
  OK(cudaPointerGetAttributes(&attributes, pageable));
  CHECK(attributes.type == cudaMemoryTypeUnregistered);
  OK(cudaHostRegister(pageable, sizeof pageable, cudaHostRegisterDefault));
  OK(cudaPointerGetAttributes(&attributes, pageable));
  CHECK(attributes.type == cudaMemoryTypeHost);
  OK(cudaHostUnregister(pageable));
  OK(cudaFree(device));
  OK(cudaFreeHost(pinned));
}

TEST_CASE("what is left at reset is reported by name") {
  shardkit_double::reset();
  const cudaStream_t stream = new_stream();
  new_event();
  float* memory = device_memory(4);
  pinned_memory(4);
  shardkit_double::set_stalled(0, true);
  OK(cudaMemsetAsync(memory, 0, 4, stream));
  std::set<std::string> texts;
  for (const auto& r : shardkit_double::reset()) {
    CHECK(to_string(r.kind) == std::string("leak"));
    texts.insert(r.text);
  }
  CHECK(texts == std::set<std::string>{"16 bytes of device 0 allocation #1 were not freed",
                                       "16 bytes of device 0 pinned allocation #2 were not freed",
                                       "stream #1 of device 0 was not destroyed",
                                       "event #1 of device 0 was not destroyed"});
  CHECK(shardkit_double::reset().empty());
}

TEST_CASE("a device has the memory that it was given") {
  session s;
  shardkit_double::set_device_memory(1000);
  void* first = nullptr;
  void* second = nullptr;
  OK(cudaMalloc(&first, 600));
  CHECK(cudaMalloc(&second, 600) == cudaErrorMemoryAllocation);
  std::size_t free_bytes = 0, total = 0;
  OK(cudaMemGetInfo(&free_bytes, &total));
  CHECK(free_bytes == 400);
  CHECK(total == 1000);
  OK(cudaFree(first));
  OK(cudaMalloc(&second, 600));
  OK(cudaFree(second));
}
