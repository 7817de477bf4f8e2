// A program as engines have it, with one synchronisation after the other left out on request: three ranks, threads
// with a device each, upload a buffer on a copy stream, pass it around a ring on a second stream, download what they
// got, and let a host function say that it is there. Only the CUDA runtime is used, so that ThreadSanitizer sees the
// program and nothing else.
#pragma once

#include <double/control.hpp>

#include <cuda_runtime_api.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <string_view>
#include <thread>
#include <vector>

namespace cuda_double_test {

/// What is left out. Those that are hidden sleep on the host instead, so that the data come out right.
enum class bug {
  none,
  upload_not_awaited,  ///< the ring's stream does not wait for the upload: the order checker's
  upload_not_awaited_hidden,
  peer_not_awaited,  ///< the ring's stream does not wait for the neighbour's: the order checker's
  peer_not_awaited_hidden,
  read_too_early,  ///< the host reads what was not synchronised: ThreadSanitizer's
  read_too_early_hidden,
  reused_too_early,  ///< the host writes what is being uploaded: ThreadSanitizer's
  reused_too_early_hidden,
  result_taken_too_early,  ///< the host reads what a host function writes: ThreadSanitizer's
  result_taken_too_early_hidden,
};

inline constexpr std::array<std::string_view, 11> bug_names = {"none",
                                                               "upload_not_awaited",
                                                               "upload_not_awaited_hidden",
                                                               "peer_not_awaited",
                                                               "peer_not_awaited_hidden",
                                                               "read_too_early",
                                                               "read_too_early_hidden",
                                                               "reused_too_early",
                                                               "reused_too_early_hidden",
                                                               "result_taken_too_early",
                                                               "result_taken_too_early_hidden"};

/// Ends the program when CUDA does not do what this one needs.
inline void need(cudaError_t code, const char* call) {
  if (code == cudaSuccess) return;
  std::fprintf(stderr, "%s: %s\n%s", call, cudaGetErrorName(code), shardkit_double::report_text().c_str());
  std::exit(3);
}
#define NEED(call) need((call), #call)

/// Runs the program once on the double of three devices or more; how many ranks got wrong data.
inline int run_pipeline(bug left_out) {
  constexpr int ranks = 3;
  constexpr int count = 256;
  constexpr std::size_t bytes = count * sizeof(int);
  const auto leaves_out = [&](bug shown) {
    const bool hidden = static_cast<int>(left_out) == static_cast<int>(shown) + 1;
    if (hidden) std::this_thread::sleep_for(std::chrono::milliseconds(6));
    return left_out == shown || hidden;
  };
  struct per_rank {
    int* buffer = nullptr;
    int* inbox = nullptr;
    cudaEvent_t uploaded = nullptr;
    cudaEvent_t passed_on = nullptr;
    std::atomic<bool> ready{false};
    std::atomic<bool> passed{false};
  };
  std::array<per_rank, ranks> all;
  std::atomic<int> wrong{0};
  const auto rank_main = [&](int rank) {
    NEED(cudaSetDevice(rank));
    per_rank& mine = all[static_cast<std::size_t>(rank)];
    const int next = (rank + 1) % ranks;
    per_rank& neighbour = all[static_cast<std::size_t>(next)];
    cudaStream_t copies = nullptr, ring = nullptr;
    NEED(cudaStreamCreateWithFlags(&copies, cudaStreamNonBlocking));
    NEED(cudaStreamCreateWithFlags(&ring, cudaStreamNonBlocking));
    for (cudaEvent_t* event : {&mine.uploaded, &mine.passed_on})
      NEED(cudaEventCreateWithFlags(event, cudaEventDisableTiming));
    NEED(cudaMalloc(reinterpret_cast<void**>(&mine.buffer), bytes));
    NEED(cudaMalloc(reinterpret_cast<void**>(&mine.inbox), bytes));
    std::vector<int> input(count, rank + 1), output(count, 0);

    NEED(cudaMemcpyAsync(mine.buffer, input.data(), bytes, cudaMemcpyHostToDevice, copies));
    if (!leaves_out(bug::upload_not_awaited)) {
      NEED(cudaEventRecord(mine.uploaded, copies));
      NEED(cudaStreamWaitEvent(ring, mine.uploaded, 0));
    }

    // My buffer goes into my neighbour's inbox, which it has allocated when it says so.
    mine.ready.store(true, std::memory_order_release);
    while (!neighbour.ready.load(std::memory_order_acquire)) std::this_thread::yield();
    NEED(cudaMemcpyPeerAsync(neighbour.inbox, next, mine.buffer, rank, bytes, ring));
    NEED(cudaEventRecord(mine.passed_on, ring));
    mine.passed.store(true, std::memory_order_release);
    if (!leaves_out(bug::reused_too_early)) NEED(cudaStreamSynchronize(copies));
    input[0] = -1;

    per_rank& previous = all[static_cast<std::size_t>((rank + ranks - 1) % ranks)];
    while (!previous.passed.load(std::memory_order_acquire)) std::this_thread::yield();
    if (!leaves_out(bug::peer_not_awaited)) NEED(cudaStreamWaitEvent(ring, previous.passed_on, 0));
    NEED(cudaMemcpyAsync(output.data(), mine.inbox, bytes, cudaMemcpyDeviceToHost, ring));
    if (!leaves_out(bug::read_too_early)) NEED(cudaStreamSynchronize(ring));
    const int expected = (rank + ranks - 1) % ranks + 1;
    bool right = std::count(output.begin(), output.end(), expected) == count;

    // A host function has the last word; it has a stack, as functions do.
    int result = 0;
    NEED(cudaLaunchHostFunc(
        ring,
        [](void* where) {
          volatile int parts[8] = {};
          for (volatile int& part : parts) part = 1;
          *static_cast<int*>(where) = parts[7];
        },
        &result));
    if (!leaves_out(bug::result_taken_too_early)) NEED(cudaStreamSynchronize(ring));
    right = right && result == 1;
    if (!right) ++wrong;
    NEED(cudaStreamSynchronize(copies));
    NEED(cudaStreamSynchronize(ring));
    NEED(cudaFree(mine.inbox));
    NEED(cudaFree(mine.buffer));
    NEED(cudaEventDestroy(mine.uploaded));
    for (const cudaStream_t stream : {copies, ring}) NEED(cudaStreamDestroy(stream));
  };
  std::vector<std::thread> threads;
  for (int rank = 0; rank < ranks; ++rank) threads.emplace_back(rank_main, rank);
  for (std::thread& thread : threads) thread.join();
  for (per_rank& rank : all) NEED(cudaEventDestroy(rank.passed_on));
  return wrong;
}

}  // namespace cuda_double_test
