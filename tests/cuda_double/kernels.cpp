// Code that nvcc compiled links with the double; its launches reach stand-ins, which check arguments and do the work.
#include <cuda_double/scale.hpp>
#include <cuda_double/support.hpp>

#include <stdexcept>

using namespace cuda_double_test;
using shardkit_double::kernel_launch;
using shardkit_double::operation;
using shardkit_double::progress;
using shardkit_double::storage;

namespace {

template <class T>
operation scale_on_host(const kernel_launch& launch) {
  T* values = launch.argument<T*>(0);
  const T factor = launch.argument<T>(1);
  const int count = launch.argument<int>(2);
  if (static_cast<int>(launch.grid[0] * launch.block[0]) < count)
    throw std::invalid_argument("the grid leaves values out");
  operation op;
  const std::size_t bytes = static_cast<std::size_t>(count) * sizeof(T);
  op.accesses = {shardkit_double::reads(values, bytes), shardkit_double::writes(values, bytes)};
  op.parameters = "by " + std::to_string(factor);
  op.run = [=] {
    T* data = static_cast<T*>(storage(values));
    for (int i = 0; i < count; ++i) data[i] *= factor;
    return progress::done;
  };
  return op;
}

operation stand_in(const kernel_launch& launch) {
  return launch.kernel.find("scale_kernel<float>") != std::string::npos ? scale_on_host<float>(launch)
                                                                        : scale_on_host<double>(launch);
}

const std::string name = "cuda_double_test::(anonymous namespace)::scale_kernel";

}  // namespace

TEST_CASE("a kernel launch reaches its stand-in with grid, arguments and type") {
  session s;
  shardkit_double::set_stand_in(name, stand_in);
  const cudaStream_t stream = new_stream();
  float* f = pinned_memory<float>(300);
  double* d = pinned_memory<double>(300);
  f[299] = 3.0f;
  d[299] = 5.0;
  scale(f, 2.0f, 300, 3, stream);
  scale(d, 0.5, 300, 3, stream);
  OK(cudaGetLastError());
  OK(cudaStreamSynchronize(stream));
  CHECK(f[299] == 6.0f);
  CHECK(d[299] == 2.5);
  scale(f, 2.0f, 300, 2, stream);
  CHECK(cudaGetLastError() == cudaErrorInvalidValue);
  expect_report(report_kind::bad_argument, {"scale_kernel<float>", "the grid leaves values out"});
  scale(f, 2.0f, 300, 0, stream);
  CHECK(cudaGetLastError() == cudaErrorInvalidConfiguration);
  expect_report(report_kind::bad_argument, {"grid 0 x 1 x 1"});
  launch_without_stand_in(stream);
  CHECK(cudaGetLastError() == cudaErrorInvalidDeviceFunction);
  expect_report(report_kind::bad_argument,
                {"set_stand_in(\"cuda_double_test::(anonymous namespace)::without_stand_in\""});
  OK(cudaFreeHost(f));
  OK(cudaFreeHost(d));
  OK(cudaStreamDestroy(stream));
}

TEST_CASE("kernels are checked for bounds, devices and order, and captured, as copies are") {
  session s;
  shardkit_double::set_stand_in(name, stand_in);
  two_streams t;
  const int count = static_cast<int>(t.count);
  scale(t.a, 2.0f, count + 1, 1, t.first);
  CHECK(cudaGetLastError() == cudaErrorInvalidValue);
  expect_report(report_kind::out_of_bounds, {"scale_kernel", "reads 260 bytes"});
  std::vector<float> pageable(4);
  scale(pageable.data(), 2.0f, 4, 1, t.first);
  CHECK(cudaGetLastError() == cudaErrorInvalidValue);
  expect_report(report_kind::bad_argument, {"pageable memory"});
  OK(cudaSetDevice(1));
  scale(t.a, 2.0f, count, 1, t.first);
  CHECK(cudaGetLastError() == cudaErrorInvalidResourceHandle);
  expect_report(report_kind::wrong_device);
  OK(cudaSetDevice(0));
  t.write(t.second);
  scale(t.a, 2.0f, count, 1, t.first);
  expect_report(report_kind::race, {"scale_kernel on stream #1", "cudaMemsetAsync on stream #2"});
  OK(cudaDeviceSynchronize());

  cudaGraph_t graph = nullptr;
  OK(cudaStreamBeginCapture(t.first, cudaStreamCaptureModeThreadLocal));
  scale(t.a, 3.0f, 2, 1, t.first);
  OK(cudaStreamEndCapture(t.first, &graph));
  CHECK(shardkit_double::graph_text(graph) ==
        "0: kernel " + name +
            " by 3.000000, reads 8 bytes at device 0 allocation #1, writes 8 bytes at device 0 "
            "allocation #1\n");
  OK(cudaGraphDestroy(graph));
}
