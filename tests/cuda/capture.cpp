// What is captured into a graph: the nodes of the sequence written by hand, and nothing else.
#include "fixture.hpp"

#include <shardkit/data/matrix_split.hpp>
#include <shardkit/data/pad_and_split.hpp>
#include <support/captured_graph.hpp>

#include <thread>

using shardkit::buffer;
using shardkit::cuda_event;
using shardkit::cuda_space;
using shardkit::cuda_stream;
using shardkit::matrix_view;
using shardkit::participant;
using shardkit::pinned_space;
using shardkit::sum;
using shardkit_test::captured_graph;
using namespace cuda_tests;

namespace {

using bytes = std::vector<unsigned char>;
using matrix = matrix_view<unsigned char, cuda_space>;

// What a captured call may not do.
int forbidden_calls() {
  int made = 0;
  for (const char* function : {"cudaMalloc", "cudaMallocHost", "cudaMallocManaged", "cudaFree", "cudaEventQuery",
                               "cudaStreamQuery", "cudaStreamSynchronize", "cudaDeviceSynchronize",
                               "cudaEventSynchronize", "cudaEventCreateWithFlags", "cudaPointerGetAttributes"})
    made += shardkit_double::calls(function);
  return made;
}

}  // namespace

TEST_CASE("Copies, fills and splits are captured and replayed with new contents") {
  const clean_machine machine;
  const cuda_stream stream;
  buffer<unsigned char, cuda_space> in(60), padded(24), columns(30);
  buffer<unsigned char, pinned_space> host_in(60), host_out(60);
  const auto body = [&] {
    copy(in, host_in, stream);
    pad_and_split_into(participant(2, 3), matrix(in.data(), 10, 6), matrix(padded.data(), 4, 6),
                       shardkit::repeat_last{}, shardkit::layout::balanced, stream);
    copy(matrix(columns.data(), 10, 3), split_columns(participant(1, 2), matrix(in.data(), 10, 6)), stream);
    fill_zero(matrix(in.data(), 10, 2, 6), stream);
    copy(host_out, in, stream);
  };
  const int before = forbidden_calls();
  captured_graph graph(stream, body);
  CHECK(forbidden_calls() == before);

  for (const unsigned seed : {1u, 2u}) {
    const bytes all = pattern(60, seed);
    for (std::size_t i = 0; i < 60; ++i) host_in[i] = all[i];
    graph.launch(stream);
    synchronize(stream, deadline);
    bytes expected_padded, expected_columns, expected_out = all;
    for (const std::size_t row : extents{7, 8, 9, 9})
      expected_padded.insert(expected_padded.end(), &all[row * 6], &all[row * 6] + 6);
    for (std::size_t row = 0; row < 10; ++row) {
      expected_columns.insert(expected_columns.end(), &all[row * 6] + 3, &all[row * 6] + 6);
      expected_out[row * 6] = expected_out[row * 6 + 1] = 0;
    }
    CHECK(on_host(padded, stream) == expected_padded);
    CHECK(on_host(columns, stream) == expected_columns);
    CHECK(bytes(host_out.begin(), host_out.end()) == expected_out);
  }
}

TEST_CASE("A call on two streams is captured, with exactly the nodes of the sequence written by hand") {
  const clean_machine machine;
  cuda_stream compute, communication;
  one_rank_communicator comm{one_rank()};
  buffer<unsigned char, cuda_space> x(100), y(100), z(100);
  const auto by_library = [&] {
    cuda_space::fill_bytes(x.data(), 3, 100, compute);
    shardkit::request pending = comm.all_reduce_async(x, y, sum, shardkit::fork{compute, communication});
    cuda_space::fill_bytes(z.data(), 4, 50, compute);  // beside the call
    pending.wait();
    cuda_space::copy(z.data() + 50, y.data() + 50, 50, compute);
  };
  cudaEvent_t there, back;
  REQUIRE(cudaEventCreateWithFlags(&there, cudaEventDisableTiming) == cudaSuccess);
  REQUIRE(cudaEventCreateWithFlags(&back, cudaEventDisableTiming) == cudaSuccess);
  const auto by_hand = [&] {
    CHECK(cudaMemsetAsync(x.data(), 3, 100, compute.handle()) == cudaSuccess);
    CHECK(cudaEventRecord(there, compute.handle()) == cudaSuccess);
    CHECK(cudaStreamWaitEvent(communication.handle(), there, 0) == cudaSuccess);
    CHECK(cudaMemcpyAsync(y.data(), x.data(), 100, cudaMemcpyDefault, communication.handle()) == cudaSuccess);
    CHECK(cudaEventRecord(back, communication.handle()) == cudaSuccess);
    CHECK(cudaMemsetAsync(z.data(), 4, 50, compute.handle()) == cudaSuccess);
    CHECK(cudaStreamWaitEvent(compute.handle(), back, 0) == cudaSuccess);
    CHECK(cudaMemcpyAsync(z.data() + 50, y.data() + 50, 50, cudaMemcpyDefault, compute.handle()) == cudaSuccess);
  };
  {
    const int before = forbidden_calls();
    captured_graph library(compute, by_library);
    CHECK(forbidden_calls() == before);
    const captured_graph hand(compute, by_hand);
    CHECK(library.text() == hand.text());
    if (shardkit_double::active()) CHECK(library.text().find("cudaMemcpyAsync") != std::string::npos);
    for (int replay = 0; replay < 3; ++replay) library.launch(compute);
    bytes expected(50, 4);
    expected.resize(100, 3);
    CHECK(on_host(z, compute) == expected);
  }
  CHECK(cudaEventDestroy(there) == cudaSuccess);
  CHECK(cudaEventDestroy(back) == cudaSuccess);
}

TEST_CASE("A request that nobody waits for leaves no stream outside of the graph") {
  const clean_machine machine;
  cuda_stream compute, communication;
  one_rank_communicator comm{one_rank()};
  buffer<unsigned char, cuda_space> x(10), y(10);
  fill_zero(x, compute);
  captured_graph graph(compute, [&] {
    const shardkit::request dropped = comm.all_reduce_async(x, y, sum, shardkit::fork{compute, communication});
    CHECK(dropped.active());
  });
  graph.launch(compute);
  CHECK(on_host(y, compute) == bytes(10, 0));
}

TEST_CASE("What cannot be captured is refused before anything is recorded, and the capture goes on") {
  const clean_machine machine;
  cuda_stream compute, communication;
  one_rank_communicator comm{one_rank()};
  buffer<unsigned char, cuda_space> x(10), y(10);
  fill_zero(x, compute);
  {
    captured_graph graph(compute, [&] {
      CHECK_THROWS_WITH_AS(synchronize(compute, deadline), doctest::Contains("end the capture first"),
                           shardkit::usage_error);
      shardkit::request pending = comm.all_reduce_async(x, y, sum, shardkit::fork{compute, communication});
      CHECK_THROWS_WITH_AS((void)pending.test(), doctest::Contains("during capture"), shardkit::usage_error);
      pending.wait();
    });
    graph.launch(compute);
    CHECK(on_host(y, compute) == bytes(10, 0));
  }
  {
    const int made = shardkit_double::calls("cudaEventCreateWithFlags");
    std::vector<shardkit::request> pending;
    captured_graph graph(compute, [&] {
      CHECK_THROWS_WITH_AS(for (int i = 0; i < 1000; ++i) pending.push_back(
                               comm.all_reduce_async(x, y, sum, shardkit::fork{compute, communication})),
                           doctest::Contains("none is made during capture"), shardkit::usage_error);
      pending.clear();
    });
    CHECK(shardkit_double::calls("cudaEventCreateWithFlags") == made);
  }
  synchronize(communication, deadline);
}

TEST_CASE("What is waited for beside a capture disturbs it in no mode, neither from this thread nor from another") {
  const clean_machine machine;
  const cuda_stream recorded, other;
  buffer<unsigned char, cuda_space> x(10), y(10);
  const auto wait_for_other = [&] {
    const cuda_event end;
    fill_zero(y, other);
    end.record(other);
    synchronize(other, deadline);
    CHECK(end.reached());
  };
  for (const auto mode : {cudaStreamCaptureModeGlobal, cudaStreamCaptureModeThreadLocal}) {
    cudaGraph_t graph = nullptr;
    REQUIRE(cudaStreamBeginCapture(recorded.handle(), mode) == cudaSuccess);
    fill_zero(x, recorded);
    wait_for_other();
    std::thread(wait_for_other).join();
    CHECK(cudaStreamEndCapture(recorded.handle(), &graph) == cudaSuccess);
    CHECK(cudaGraphDestroy(graph) == cudaSuccess);
  }
}
