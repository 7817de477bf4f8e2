// What comes of every call of CUDA's that fails: one error that names it, and nothing left behind.
#include "fixture.hpp"

#include <shardkit/cuda/managed_space.hpp>
#include <shardkit/data/pad_and_split.hpp>

#include <cstdio>

using shardkit::buffer;
using shardkit::cuda_error;
using shardkit::cuda_space;
using shardkit::cuda_stream;
using shardkit::managed_space;
using shardkit::matrix_view;
using shardkit::participant;
using shardkit::pinned_space;
using shardkit::sum;
using namespace cuda_tests;

namespace {

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

// Everything that the headers ask of CUDA, some of it several times. Waits for its streams however it ends, as an
// engine would before it frees memory.
void use_everything() {
  const shardkit::cuda_device_guard there(1);
  const shardkit::cuda_device_guard back(0);
  cuda_stream compute, communication;
  one_rank backend;
  one_rank_communicator comm{backend};
  buffer<int, cuda_space> a(60), b(60);
  buffer<int, pinned_space> host(60);
  buffer<int, managed_space> managed(60);
  struct quiet_end {
    cudaStream_t first, second;
    ~quiet_end() {
      (void)cudaStreamSynchronize(first);
      (void)cudaStreamSynchronize(second);
    }
  } end{compute.handle(), communication.handle()};

  shardkit::require_device_pointer(a.data());
  fill_zero(a, compute);
  fill_zero(matrix_view<int, cuda_space>(a.data(), 6, 8, 10), compute);
  copy(b, a, compute);
  copy(matrix_view<int, cuda_space>(b.data(), 6, 8, 10), matrix_view<int, cuda_space>(a.data(), 6, 8, 9), compute);
  pad_and_split_into(participant(1, 2), matrix_view<const int, cuda_space>(a.data(), 5, 4),
                     matrix_view<int, cuda_space>(b.data(), 3, 4), shardkit::repeat_last{}, shardkit::layout::balanced,
                     compute);
  shardkit::request pending = comm.all_reduce_async(a, b, sum, shardkit::fork{compute, communication});
  pending.wait();
  copy(host, b, compute);
  pending = comm.all_reduce_async(b, a, sum, compute);
  while (!pending.test()) {
  }
  synchronize(compute, deadline, comm);
}

// What to expect of a function's failing calls.
struct expectation {
  const char* function;
  int throwing;  // so many first calls throw, the rest are made by destructors; -1: all throw
};
constexpr expectation all_functions[] = {{"cudaGetDevice", 5},
                                         {"cudaSetDevice", 2},
                                         {"cudaStreamCreateWithPriority", -1},
                                         {"cudaMalloc", -1},
                                         {"cudaMallocHost", -1},
                                         {"cudaEventCreateWithFlags", -1},
                                         {"cudaMallocManaged", -1},
                                         {"cudaPointerGetAttributes", -1},
                                         {"cudaMemsetAsync", -1},
                                         {"cudaMemset2DAsync", -1},
                                         {"cudaMemcpyAsync", -1},
                                         {"cudaMemcpy2DAsync", -1},
                                         {"cudaEventRecord", -1},
                                         {"cudaStreamWaitEvent", -1},
                                         {"cudaEventQuery", 1},
                                         {"cudaStreamIsCapturing", 1},
                                         {"cudaStreamQuery", 1},
                                         {"cudaFree", 0},
                                         {"cudaFreeHost", 0},
                                         {"cudaEventDestroy", 0},
                                         {"cudaStreamDestroy", 0}};

}  // namespace

TEST_CASE("Everything that is used here is used correctly") {
  if (shardkit::cuda_device_count() < 2) return;
  const clean_machine machine;
  use_everything();
}

TEST_CASE("Whichever call fails, one error names it with code, device, stream and place, and nothing is left behind") {
  if (!shardkit_double::active()) return;
  constexpr int code = cudaErrorMemoryAllocation;
  for (const auto& [function, throwing] : all_functions) {
    CAPTURE(function);
    (void)cudaSetDevice(0);
    use_everything();
    const int made = shardkit_double::calls(function);
    CHECK(made > 0);
    (void)shardkit_double::reset();
    // How often is asked depends on the schedule; one destructor's complaint is enough to read.
    const bool once = contains(function, "Query") || contains(function, "IsCapturing") || throwing == 0;
    const bool on_stream = contains(function, "Async") || contains(function, "Record") ||
                           contains(function, "WaitEvent") || contains(function, "cudaStreamIs") ||
                           contains(function, "StreamQuery");
    for (int nth = 1; nth <= (once ? 1 : made); ++nth) {
      CAPTURE(nth);
      const bool throws = throwing < 0 || nth <= throwing;
      (void)cudaSetDevice(0);
      (void)cudaGetLastError();
      shardkit_double::fail_call(function, nth, code);
      bool thrown = false;
      try {
        use_everything();
      } catch (const cuda_error& failure) {
        thrown = true;
        const std::string what = failure.what();
        CAPTURE(what);
        CHECK(failure.code() == code);
        CHECK(contains(what, std::string(function) + " failed: cudaErrorMemoryAllocation (2)"));
        CHECK(contains(what, "device "));
        CHECK((contains(what, "errors.cpp:") || contains(what, "forked.hpp:")));
        CHECK(contains(what, ", stream 0x") == on_stream);
      }
      CHECK(thrown == throws);
      CHECK(cudaGetLastError() == cudaSuccess);
      for (const auto& one : shardkit_double::reset())
        CHECK_MESSAGE((!throws && one.kind == shardkit_double::report_kind::leak), one.text);
    }
  }
}

TEST_CASE("An error on a stream names the stream, and a verb's error the rank") {
  const clean_machine machine;
  if (!shardkit_double::active()) return;
  const cuda_stream stream;
  one_rank_communicator comm{one_rank()};
  buffer<int, cuda_space> a(4), b(4);
  char name[32];
  std::snprintf(name, sizeof name, "stream %p", static_cast<void*>(stream.handle()));
  shardkit_double::fail_call("cudaMemcpyAsync", 1, cudaErrorInvalidValue);
  CHECK_THROWS_WITH_AS(comm.all_reduce(a, b, sum, stream), doctest::Contains(name), cuda_error);
  shardkit_double::fail_call("cudaMemcpyAsync", 1, cudaErrorInvalidValue);
  CHECK_THROWS_WITH_AS(comm.all_reduce(a, b, sum, stream), doctest::Contains("rank 0 of 1 of 'world', all_reduce"),
                       cuda_error);
  shardkit_double::fail_call("cudaMemsetAsync", 1, cudaErrorInvalidValue);
  CHECK_THROWS_WITH_AS(fill_zero(a), doctest::Contains("default stream"), cuda_error);
}

TEST_CASE("A fork whose event fails has told the peers") {
  const clean_machine machine;
  if (!shardkit_double::active()) return;
  const cuda_stream compute, communication;
  one_rank backend;
  one_rank_communicator comm{backend};
  buffer<int, cuda_space> a(4), b(4);
  shardkit_double::fail_call("cudaEventRecord", 1, cudaErrorInvalidResourceHandle);
  CHECK_THROWS_WITH_AS((void)comm.all_reduce_async(a, b, sum, {compute, communication}),
                       doctest::Contains("belongs to another device"), cuda_error);
  CHECK(contains(*backend.failure, "cudaEventRecord"));
}

TEST_CASE("Where there is no GPU or no driver, the count is 0 and every error says what to look for") {
  if (!shardkit_double::active()) return;
  for (const bool driver : {false, true}) {
    if (driver) shardkit_double::set_device_count(0);
    else shardkit_double::set_driver_missing(true);
    CHECK(shardkit::cuda_device_count() == 0);
    CHECK_THROWS_WITH_AS((buffer<int, cuda_space>(1)), doctest::Contains("nvidia-smi"), cuda_error);
    (void)shardkit_double::reset();
  }
}
