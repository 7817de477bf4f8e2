// A program whose ranks fail in the way that its argument names; failures.cpp runs it under mpiexec and reads what it
// leaves behind. Reports of what a rank caught start with "caught on rank".
#include <double/control.hpp>
#include <shardkit/backends/mpi_cuda.hpp>
#include <shardkit/core/buffer.hpp>
#include <shardkit/cuda/stream.hpp>

#include <chrono>
#include <cstddef>
#include <cstdio>
#include <functional>
#include <map>
#include <stdexcept>
#include <string>
#include <thread>

using namespace shardkit;

struct small_float {
  unsigned char bits;
};
template <>
struct shardkit::dtype_traits<small_float> {
  static constexpr dtype value = dtype::f8e4m3;
};

namespace {

constexpr std::size_t count = 5000;

struct rank_state {
  mpi_communicator& host;
  mpi_cuda_communicator world;
  cuda_stream stream, communication;
  buffer<float, cuda_space> data{count};
  buffer<small_float, cuda_space> bytes{count};

  cuda_space::fork fork() const { return {stream.handle(), communication.handle()}; }
};

void pass_seconds(double seconds) { std::this_thread::sleep_for(std::chrono::duration<double>(seconds)); }

// Nothing of the refused call may be in the graph.
template <class Body>
void capture(rank_state& my, Body body) {
  cuda_check(cudaStreamBeginCapture(my.stream.handle(), cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
  try {
    body();
  } catch (...) {
    cudaGraph_t graph = nullptr;
    std::size_t nodes = 99;
    cuda_check(cudaStreamEndCapture(my.stream.handle(), &graph), "cudaStreamEndCapture");
    cuda_check(cudaGraphGetNodes(graph, nullptr, &nodes), "cudaGraphGetNodes");
    std::printf("the graph has %zu nodes\n", nodes);
    cuda_check(cudaGraphDestroy(graph), "cudaGraphDestroy");
    throw;
  }
}

struct scenario {
  std::function<void(rank_state&)> run;
  mpi_cuda_options options;
};
const std::map<std::string, scenario> scenarios = {
    {"fine", {[](rank_state& my) { my.world.all_reduce(in_place(my.data), sum, my.stream); }, {}}},
    {"captures",
     {[](rank_state& my) { capture(my, [&] { my.world.all_reduce(in_place(my.data), sum, my.stream); }); }, {}}},
    {"captures a started call",
     {[](rank_state& my) { capture(my, [&] { my.world.all_reduce_async(in_place(my.data), sum, my.fork()).wait(); }); },
      {}}},
    {"calls with another device",
     {[](rank_state& my) {
        if (my.world.rank() == 1) cuda_check(cudaSetDevice(1), "cudaSetDevice");
        my.world.all_reduce(in_place(my.data), sum, my.stream);
      },
      {}}},
    {"has a stream that stands still",
     {[](rank_state& my) {
        if (my.world.rank() == 1) shardkit_double::set_stalled(0, true);
        else pass_seconds(0.5);  // the other's deadline comes first
        cuda_space::fill_bytes(my.data.data(), 0, count, my.stream);
        my.world.all_reduce(in_place(my.data), sum, my.stream);
      },
      {}}},
    {"never arrives",
     {[](rank_state& my) {
        if (my.world.rank() == 1) pass_seconds(10);
        my.world.all_reduce(in_place(my.data), sum, my.stream);
      },
      {}}},
    {"throws",
     {[](rank_state& my) {
        if (my.world.rank() == 1) throw std::runtime_error("the disk is full");
        my.world.all_reduce(in_place(my.data), sum, my.stream);
      },
      {}}},
    {"has a device that breaks",
     {[](rank_state& my) {
        if (my.world.rank() == 1) shardkit_double::fail_operation("cudaMemcpyAsync", 1, cudaErrorIllegalAddress);
        my.world.all_reduce(in_place(my.data), sum, my.stream);
      },
      {}}},
    {"drops a request",
     {[](rank_state& my) {
        if (my.world.rank() == 1) (void)my.world.recv_async(my.data, 0, my.stream);
        my.world.all_reduce(in_place(my.data), sum, my.stream);
      },
      {}}},
    {"receives another number of pieces",
     {[](rank_state& my) {
        if (my.world.rank() == 0) my.world.send(view<float, cuda_space>(my.data.data(), 2000), 1, my.stream);
        if (my.world.rank() == 1) my.world.recv(view<float, cuda_space>(my.data.data(), 512), 0, my.stream);
        my.world.barrier(my.stream);
      },
      {.staging_bytes = 4096}}},
    {"reduces bytes", {[](rank_state& my) { my.world.all_reduce(in_place(my.bytes), sum, my.stream); }, {}}},
    {"needs the staging that it forbids",
     {[](rank_state& my) { my.world.all_reduce(in_place(my.data), average, my.stream); },
      {.aware = mpi_cuda_aware::yes, .staging = staging::forbidden}}},
};

}  // namespace

int main(int argc, char** argv) {
  const scenario& chosen = scenarios.at(argv[argc - 1]);
  mpi_options options;
  options.limits.operation = 2;
  options.limits.abort = 1;
  try {
    mpi_environment mpi(argc, argv, options);
    try {
      mpi.run([&](mpi_communicator& host) {
        rank_state my{host, mpi_cuda_world(host, chosen.options), cuda_stream(), cuda_stream()};
        chosen.run(my);
        host.barrier();
      });
    } catch (const std::exception& failure) {
      std::printf("caught on rank %d: %s\n", mpi.rank(), failure.what());
      std::fflush(stdout);
      throw;
    }
  } catch (const std::exception&) {
    return 3;
  }
  shardkit_double::clear_reports();
  return 0;
}
