// What the double claims about CUDA, in tests that a GPU can run too: the same program is linked with the double and,
// as cuda_behaviour_gpu, with the real runtime.
#include <cuda_double/support.hpp>

#include <functional>

using namespace cuda_double_test;

namespace {

constexpr std::size_t count = 1000, bytes = count * sizeof(int);

/// A stream with device memory, and pinned memory on both sides of it.
struct machine {
  machine() {
    for (std::size_t i = 0; i < count; ++i) {
      input[i] = static_cast<int>(i);
      output[i] = -1;
    }
  }
  ~machine() {
    OK(cudaDeviceSynchronize());
    OK(cudaFree(device));
    OK(cudaFreeHost(input));
    OK(cudaFreeHost(output));
    OK(cudaStreamDestroy(stream));
    OK(cudaStreamDestroy(other));
    OK(cudaEventDestroy(event));
    cudaGetLastError();
  }
  machine(const machine&) = delete;
  machine& operator=(const machine&) = delete;

  void upload(cudaStream_t on) { OK(cudaMemcpyAsync(device, input, bytes, cudaMemcpyHostToDevice, on)); }
  void download(cudaStream_t on) { OK(cudaMemcpyAsync(output, device, bytes, cudaMemcpyDeviceToHost, on)); }

  int* device = device_memory<int>(count);
  int* input = pinned_memory<int>(count);
  int* output = pinned_memory<int>(count);
  cudaStream_t stream = new_stream();
  cudaStream_t other = new_stream();
  cudaEvent_t event = new_event();
};

/// On the double what is refused is reported as well.
void refused() { shardkit_double::clear_reports(); }

}  // namespace

TEST_CASE("work of one stream runs in order, work of two in the order of an event") {
  session s;
  machine m;
  m.upload(m.stream);
  OK(cudaMemsetAsync(m.device + 1, 0, 4, m.stream));
  OK(cudaEventRecord(m.event, m.stream));
  OK(cudaStreamWaitEvent(m.other, m.event, 0));
  m.download(m.other);
  OK(cudaStreamSynchronize(m.other));
  CHECK(m.output[1] == 0);
  CHECK(m.output[count - 1] == static_cast<int>(count) - 1);
  CHECK(cudaStreamQuery(m.other) == cudaSuccess);
  CHECK(cudaEventQuery(m.event) == cudaSuccess);
}

TEST_CASE("an event that was never recorded is done, and holds up nobody") {
  session s;
  machine m;
  CHECK(cudaEventQuery(m.event) == cudaSuccess);
  OK(cudaEventSynchronize(m.event));
  OK(cudaStreamWaitEvent(m.stream, m.event, 0));
  OK(cudaStreamSynchronize(m.stream));
}

TEST_CASE("a host function sees what its stream did before, and the stream what it did") {
  session s;
  machine m;
  m.upload(m.stream);
  m.download(m.stream);
  OK(cudaLaunchHostFunc(
      m.stream,
      [](void* data) {
        machine& of = *static_cast<machine*>(data);
        of.input[0] = of.output[count - 1];
      },
      &m));
  m.upload(m.stream);
  m.download(m.stream);
  OK(cudaStreamSynchronize(m.stream));
  CHECK(m.output[0] == static_cast<int>(count) - 1);
}

TEST_CASE("two-dimensional copies move rows of a matrix") {
  session s;
  machine m;
  m.upload(m.stream);
  OK(cudaStreamSynchronize(m.stream));
  // Columns 3 and 4 of a matrix with rows of ten.
  OK(cudaMemcpy2DAsync(m.output, 8, m.device + 3, 40, 8, 100, cudaMemcpyDeviceToHost, m.stream));
  OK(cudaStreamSynchronize(m.stream));
  CHECK(m.output[198] == 993);
  CHECK(m.output[199] == 994);
  CHECK(m.output[200] == -1);
  CHECK(cudaMemcpy2DAsync(m.output, 4, m.device, 40, 8, 100, cudaMemcpyDeviceToHost, m.stream) ==
        cudaErrorInvalidPitchValue);
  refused();
  cudaGetLastError();
}

TEST_CASE("pointers tell what they are") {
  session s;
  machine m;
  int on_the_stack = 0;
  cudaPointerAttributes attributes{};
  OK(cudaPointerGetAttributes(&attributes, m.device + 5));
  CHECK(attributes.type == cudaMemoryTypeDevice);
  CHECK(attributes.device == 0);
  OK(cudaPointerGetAttributes(&attributes, m.input));
  CHECK(attributes.type == cudaMemoryTypeHost);
  OK(cudaPointerGetAttributes(&attributes, &on_the_stack));
  CHECK(attributes.type == cudaMemoryTypeUnregistered);
}

TEST_CASE("nothing is allocated, freed or copied where there are no bytes") {
  session s;
  machine m;
  void* nothing = &m;
  OK(cudaMalloc(&nothing, 0));
  CHECK(nothing == nullptr);
  OK(cudaFree(nullptr));
  OK(cudaFreeHost(nullptr));
  OK(cudaMemcpyAsync(m.output, m.device, 0, cudaMemcpyDeviceToHost, m.stream));
  OK(cudaMemsetAsync(m.device, 0, 0, m.stream));
}

TEST_CASE("devices and flags that do not exist are refused, and the last error is told once") {
  session s;
  int devices = 0;
  OK(cudaGetDeviceCount(&devices));
  CHECK(cudaSetDevice(devices) == cudaErrorInvalidDevice);
  CHECK(cudaPeekAtLastError() == cudaErrorInvalidDevice);
  CHECK(cudaGetLastError() == cudaErrorInvalidDevice);
  CHECK(cudaGetLastError() == cudaSuccess);
  refused();
  cudaStream_t stream = nullptr;
  CHECK(cudaStreamCreateWithFlags(&stream, 1u << 20) == cudaErrorInvalidValue);
  cudaEvent_t event = nullptr;
  CHECK(cudaEventCreateWithFlags(&event, 1u << 20) == cudaErrorInvalidValue);
  refused();
  cudaGetLastError();
}

TEST_CASE("a captured graph does nothing until it is launched, and then as often as it is") {
  session s;
  machine m;
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t executable = nullptr;
  OK(cudaStreamBeginCapture(m.stream, cudaStreamCaptureModeThreadLocal));
  m.upload(m.stream);
  OK(cudaEventRecord(m.event, m.stream));
  OK(cudaStreamWaitEvent(m.other, m.event, 0));
  m.download(m.other);
  cudaStreamCaptureStatus status{};
  OK(cudaStreamIsCapturing(m.other, &status));
  CHECK(status == cudaStreamCaptureStatusActive);
  OK(cudaEventRecord(m.event, m.other));
  OK(cudaStreamWaitEvent(m.stream, m.event, 0));
  OK(cudaStreamEndCapture(m.stream, &graph));
  OK(cudaStreamSynchronize(m.stream));
  CHECK(m.output[7] == -1);
  std::size_t nodes = 0;
  OK(cudaGraphGetNodes(graph, nullptr, &nodes));
  CHECK(nodes == 2);
  OK(cudaGraphInstantiate(&executable, graph, 0));
  OK(cudaGraphDestroy(graph));
  for (int round = 0; round < 3; ++round) {
    m.input[7] = round;
    OK(cudaGraphLaunch(executable, m.stream));
    OK(cudaStreamSynchronize(m.stream));
    CHECK(m.output[7] == round);
  }
  OK(cudaGraphExecDestroy(executable));
}

TEST_CASE("calls that cannot be captured fail with the documented codes and break the capture") {
  struct refusal {
    const char* name;
    cudaError_t code;
    std::function<cudaError_t(machine&)> call;
  };
  void* memory = nullptr;
  const refusal refusals[] = {
      {"cudaStreamSynchronize", cudaErrorStreamCaptureUnsupported,
       [](machine& m) { return cudaStreamSynchronize(m.stream); }},
      {"cudaStreamQuery", cudaErrorStreamCaptureUnsupported, [](machine& m) { return cudaStreamQuery(m.stream); }},
      {"cudaDeviceSynchronize", cudaErrorStreamCaptureUnsupported, [](machine&) { return cudaDeviceSynchronize(); }},
      {"cudaMalloc", cudaErrorStreamCaptureUnsupported, [&](machine&) { return cudaMalloc(&memory, 4); }},
      {"cudaEventQuery", cudaErrorCapturedEvent,
       [](machine& m) {
         OK(cudaEventRecord(m.event, m.stream));
         return cudaEventQuery(m.event);
       }},
      {"cudaStreamWaitEvent", cudaErrorStreamCaptureIsolation,
       [](machine& m) {
         OK(cudaEventRecord(m.event, m.other));
         return cudaStreamWaitEvent(m.stream, m.event, 0);
       }},
  };
  for (const refusal& r : refusals) {
    CAPTURE(r.name);
    session s;
    machine m;
    cudaGraph_t graph = nullptr;
    OK(cudaStreamBeginCapture(m.stream, cudaStreamCaptureModeGlobal));
    CHECK(r.call(m) == r.code);
    CHECK(cudaStreamEndCapture(m.stream, &graph) == cudaErrorStreamCaptureInvalidated);
    CHECK(graph == nullptr);
    refused();
    cudaGetLastError();
    m.upload(m.stream);
  }
}

TEST_CASE("a capture whose fork is not joined is refused") {
  session s;
  machine m;
  cudaGraph_t graph = nullptr;
  OK(cudaStreamBeginCapture(m.stream, cudaStreamCaptureModeThreadLocal));
  OK(cudaEventRecord(m.event, m.stream));
  OK(cudaStreamWaitEvent(m.other, m.event, 0));
  m.upload(m.other);
  CHECK(cudaStreamEndCapture(m.stream, &graph) == cudaErrorStreamCaptureUnjoined);
  refused();
  cudaGetLastError();
}
