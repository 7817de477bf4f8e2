// Graphs: what a capture records, what it refuses as CUDA does, and what a replay does.
#include <cuda_double/support.hpp>

#include <functional>
#include <thread>

using namespace cuda_double_test;

namespace {

/// Captures `record` on t.first, whose work t.second may join.
cudaGraph_t captured(two_streams& t, const std::function<void()>& record) {
  cudaGraph_t graph = nullptr;
  OK(cudaStreamBeginCapture(t.first, cudaStreamCaptureModeThreadLocal));
  record();
  OK(cudaStreamEndCapture(t.first, &graph));
  return graph;
}

void fork_and_join(two_streams& t, const std::function<void()>& record) {
  OK(cudaEventRecord(t.event, t.first));
  OK(cudaStreamWaitEvent(t.second, t.event, 0));
  record();
  OK(cudaEventRecord(t.event, t.second));
  OK(cudaStreamWaitEvent(t.first, t.event, 0));
}

struct executable_graph {
  explicit executable_graph(cudaGraph_t graph) {
    OK(cudaGraphInstantiate(&handle, graph, 0));
    OK(cudaGraphDestroy(graph));
  }
  ~executable_graph() { OK(cudaGraphExecDestroy(handle)); }
  cudaGraphExec_t handle = nullptr;
};

}  // namespace

TEST_CASE("a capture runs nothing, a replay runs everything, as often as it is launched") {
  session s;
  two_streams t;
  std::vector<int> host(t.count, 5);
  int* input = pinned_memory<int>(t.count);
  input[63] = 1;
  executable_graph graph(captured(t, [&] {
    OK(cudaMemcpyAsync(t.a, input, t.bytes, cudaMemcpyHostToDevice, t.first));
    fork_and_join(t, [&] { t.read(t.second); });
    OK(cudaMemcpyAsync(host.data(), t.b, t.bytes, cudaMemcpyDeviceToHost, t.first));
  }));
  OK(cudaStreamSynchronize(t.first));
  CHECK(host[63] == 5);
  for (int round = 1; round < 4; ++round) {
    input[63] = round;
    OK(cudaGraphLaunch(graph.handle, t.first));
    OK(cudaStreamSynchronize(t.first));
    CHECK(host[63] == round);
  }
  OK(cudaFreeHost(input));
}

TEST_CASE("a graph begins when its last launch has ended, on whatever streams the two are") {
  session s;
  two_streams t;
  executable_graph graph(captured(t, [&] {
    t.write(t.first);
    fork_and_join(t, [&] { t.read(t.second); });
  }));
  OK(cudaGraphLaunch(graph.handle, t.first));
  OK(cudaGraphLaunch(graph.handle, t.second));
  expect_no_report();
}

TEST_CASE("the text of a graph names every node, its bytes and what it waits for") {
  session s;
  two_streams t;
  const cudaGraph_t graph = captured(t, [&] {
    t.write(t.first);
    fork_and_join(t, [&] { OK(cudaMemset2DAsync(t.b, 16, 3, 8, 4, t.second)); });
    OK(cudaMemcpyAsync(t.b + 1, t.a, 4, cudaMemcpyDeviceToDevice, t.first));
  });
  CHECK(shardkit_double::graph_text(graph) ==
        "0: fill cudaMemsetAsync with 0, writes 256 bytes at device 0 allocation #1\n"
        "1: fill cudaMemset2DAsync with 3, writes 4 rows 16 bytes apart of 8 bytes at device 0 allocation #2, after 0\n"
        "2: copy cudaMemcpyAsync, reads 4 bytes at device 0 allocation #1, writes 4 bytes at device 0 allocation #2 + 4"
        ", after 0 1\n");
  std::size_t count = 0;
  OK(cudaGraphGetNodes(graph, nullptr, &count));
  REQUIRE(count == 3);
  cudaGraphNode_t nodes[3] = {};
  OK(cudaGraphGetNodes(graph, nodes, &count));
  cudaGraphNodeType type{};
  OK(cudaGraphNodeGetType(nodes[2], &type));
  CHECK(type == cudaGraphNodeTypeMemcpy);
  cudaGraphNode_t before[2] = {};
  count = 2;
  OK(cudaGraphNodeGetDependencies(nodes[2], before, nullptr, &count));
  CHECK(count == 2);
  CHECK(before[1] == nodes[1]);
  OK(cudaGraphDestroy(graph));
}

TEST_CASE("a race inside a graph, and between a graph and a stream, is found at each launch") {
  session s;
  two_streams t;
  const cudaEvent_t fork = new_event();
  {
    executable_graph graph(captured(t, [&] {
      OK(cudaEventRecord(fork, t.first));
      OK(cudaStreamWaitEvent(t.second, fork, 0));
      t.write(t.first);
      t.read(t.second);  // forked before the write
      OK(cudaEventRecord(t.event, t.second));
      OK(cudaStreamWaitEvent(t.first, t.event, 0));
    }));
    for (int launch = 0; launch < 2; ++launch) {
      OK(cudaGraphLaunch(graph.handle, t.first));
      expect_report(report_kind::race, {"branch 1 of a graph", "branch 0 of a graph"});
    }
  }
  OK(cudaDeviceSynchronize());
  {
    executable_graph graph(captured(t, [&] { t.write(t.first); }));
    t.read(t.second);
    OK(cudaGraphLaunch(graph.handle, t.first));
    expect_report(report_kind::race, {"branch 0 of a graph", "stream #2"});
  }
  OK(cudaEventDestroy(fork));
}

TEST_CASE("memory that was freed after the capture is found at the launch") {
  session s;
  two_streams t;
  float* memory = device_memory(4);
  executable_graph graph(captured(t, [&] { OK(cudaMemsetAsync(memory, 0, 16, t.first)); }));
  OK(cudaFree(memory));
  CHECK(cudaGraphLaunch(graph.handle, t.first) == cudaErrorInvalidValue);
  expect_report(report_kind::use_after_free, {"freed by cudaFree"});
}

TEST_CASE("what CUDA refuses in a capture is refused, and breaks the capture") {
  struct refusal {
    const char* name;
    cudaError_t code;
    std::function<cudaError_t(two_streams&)> call;
  };
  void* memory = nullptr;
  const refusal refusals[] = {
      {"synchronising the stream", cudaErrorStreamCaptureUnsupported,
       [](two_streams& t) { return cudaStreamSynchronize(t.first); }},
      {"asking the stream", cudaErrorStreamCaptureUnsupported, [](two_streams& t) { return cudaStreamQuery(t.first); }},
      {"synchronising another stream", cudaErrorStreamCaptureUnsupported,
       [](two_streams& t) { return cudaStreamSynchronize(t.second); }},
      {"synchronising the device", cudaErrorStreamCaptureUnsupported,
       [](two_streams&) { return cudaDeviceSynchronize(); }},
      {"allocating", cudaErrorStreamCaptureUnsupported, [&](two_streams&) { return cudaMalloc(&memory, 4); }},
      {"allocating pinned memory", cudaErrorStreamCaptureUnsupported,
       [&](two_streams&) { return cudaMallocHost(&memory, 4); }},
      {"freeing", cudaErrorStreamCaptureUnsupported, [](two_streams& t) { return cudaFree(t.a); }},
      {"copying synchronously", cudaErrorStreamCaptureUnsupported,
       [](two_streams& t) { return cudaMemcpy(t.a, t.b, 4, cudaMemcpyDeviceToDevice); }},
      {"asking an event recorded in the capture", cudaErrorCapturedEvent,
       [](two_streams& t) {
         OK(cudaEventRecord(t.event, t.first));
         return cudaEventQuery(t.event);
       }},
      {"waiting for work outside the capture", cudaErrorStreamCaptureIsolation,
       [](two_streams& t) {
         OK(cudaEventRecord(t.event, t.second));
         return cudaStreamWaitEvent(t.first, t.event, 0);
       }},
  };
  for (const refusal& r : refusals) {
    CAPTURE(r.name);
    session s;
    two_streams t;
    OK(cudaStreamBeginCapture(t.first, cudaStreamCaptureModeGlobal));
    CHECK(r.call(t) == r.code);
    expect_report(report_kind::capture);
    CHECK(cudaMemsetAsync(t.a, 0, 4, t.first) == cudaErrorStreamCaptureInvalidated);
    shardkit_double::clear_reports();
    cudaGraph_t graph = nullptr;
    CHECK(cudaStreamEndCapture(t.first, &graph) == cudaErrorStreamCaptureInvalidated);
    CHECK(graph == nullptr);
    OK(cudaMemsetAsync(t.a, 0, 4, t.first));  // the stream is as it was
    expect_no_report();
  }
}

TEST_CASE("a capture that is not joined, ended elsewhere or that touches the default stream is refused") {
  session s;
  two_streams t(cudaStreamDefault);
  cudaGraph_t graph = nullptr;
  CHECK(cudaStreamEndCapture(t.first, &graph) == cudaErrorIllegalState);
  expect_report(report_kind::capture);
  CHECK(cudaStreamBeginCapture(nullptr, cudaStreamCaptureModeGlobal) == cudaErrorStreamCaptureUnsupported);
  expect_report(report_kind::capture);

  OK(cudaStreamBeginCapture(t.first, cudaStreamCaptureModeThreadLocal));
  OK(cudaEventRecord(t.event, t.first));
  OK(cudaStreamWaitEvent(t.second, t.event, 0));
  t.read(t.second);
  CHECK(cudaStreamEndCapture(t.second, &graph) == cudaErrorStreamCaptureUnmatched);
  expect_report(report_kind::capture);
  CHECK(cudaStreamEndCapture(t.first, &graph) == cudaErrorStreamCaptureUnjoined);
  expect_report(report_kind::capture, {"stream #2 of device 0"});

  OK(cudaStreamBeginCapture(t.first, cudaStreamCaptureModeThreadLocal));
  std::thread([&] { CHECK(cudaStreamEndCapture(t.first, &graph) == cudaErrorStreamCaptureWrongThread); }).join();
  expect_report(report_kind::capture, {"another thread"});
  CHECK(cudaMemsetAsync(t.a, 0, 4, nullptr) == cudaErrorStreamCaptureImplicit);
  expect_report(report_kind::capture, {"default stream"});
  cudaStreamCaptureStatus status{};
  OK(cudaStreamIsCapturing(t.first, &status));
  CHECK(status == cudaStreamCaptureStatusInvalidated);
  CHECK(cudaStreamEndCapture(t.first, &graph) == cudaErrorStreamCaptureInvalidated);
  OK(cudaStreamIsCapturing(t.first, &status));
  CHECK(status == cudaStreamCaptureStatusNone);
}

TEST_CASE("another thread may allocate during a capture of its own thread's mode, and in relaxed mode everybody may") {
  session s;
  two_streams t;
  cudaGraph_t graph = nullptr;
  void* memory = nullptr;
  OK(cudaStreamBeginCapture(t.first, cudaStreamCaptureModeThreadLocal));
  std::thread([&] { OK(cudaMalloc(&memory, 4)); }).join();
  cudaStreamCaptureMode mode = cudaStreamCaptureModeRelaxed;
  OK(cudaThreadExchangeStreamCaptureMode(&mode));
  OK(cudaFree(memory));
  OK(cudaThreadExchangeStreamCaptureMode(&mode));
  CHECK(mode == cudaStreamCaptureModeRelaxed);
  OK(cudaStreamEndCapture(t.first, &graph));
  OK(cudaGraphDestroy(graph));
  expect_no_report();

  OK(cudaStreamBeginCapture(t.first, cudaStreamCaptureModeGlobal));
  std::thread([&] { CHECK(cudaMalloc(&memory, 4) == cudaErrorStreamCaptureUnsupported); }).join();
  expect_report(report_kind::capture, {"cudaMalloc while stream #1 of device 0 is capturing"});
  CHECK(cudaStreamEndCapture(t.first, &graph) == cudaErrorStreamCaptureInvalidated);
}
