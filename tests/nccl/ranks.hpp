// Thread ranks with a device each and a NCCL communicator over them, for the tests of this folder: on the double as
// many as a test likes, on a machine with GPUs as many as it has.
#pragma once

#include "../cuda_threads/reduce_on_host.hpp"

#include <doctest/doctest.h>
#include <double/control.hpp>
#include <shardkit/backends/nccl.hpp>
#include <shardkit/core/buffer.hpp>
#include <shardkit/core/detail/element_at.hpp>
#include <shardkit/cuda/device.hpp>
#include <shardkit/cuda/stream.hpp>
#include <shardkit/cuda/synchronize.hpp>
#include <shardkit/launch/run_ranks.hpp>
#include <support/expect_clean.hpp>

#include <algorithm>
#include <cstddef>
#include <functional>
#include <numeric>
#include <string>
#include <vector>

namespace nccl_test {

using namespace shardkit;

template <class T>
using device_buffer = buffer<T, cuda_space>;

/// nccl_options::ordered_reduce for machines without nvcc.
inline void reduce_on_host(reduction_kind kind, dtype type, const void* in, int ranks, void* out, std::size_t count,
                           cudaStream_t stream) {
  std::vector<const void*> inputs;
  for (std::size_t rank = 0; rank < static_cast<std::size_t>(ranks); ++rank)
    inputs.push_back(shardkit::detail::element_at(in, rank * count, type));
  cuda_threads_test::reduce_on_host(kind, type, inputs.data(), ranks, &out, 1, count, stream);
}

inline nccl_options options_with_kernel() {
  nccl_options options;
  options.limits.init = options.limits.operation = 20;
  options.limits.abort = 2;
  options.ordered_reduce = &reduce_on_host;
  return options;
}

/// Numbers of ranks that this machine has devices for.
inline std::vector<int> rank_counts(std::vector<int> wanted) {
  if (shardkit_double::active()) {
    shardkit_double::set_device_count(*std::max_element(wanted.begin(), wanted.end()));
    return wanted;
  }
  const int devices = cuda_device_count();
  std::erase_if(wanted, [&](int ranks) { return ranks > devices; });
  return wanted;
}

/// body(host) on each thread rank, its device being current.
inline void on_devices(int ranks, const std::function<void(thread_communicator&)>& body) {
  launch_options options;
  options.limits.operation = 20;
  options.on_failure = nullptr;
  run_ranks(ranks, options, [&](thread_communicator& host) {
    cuda_check(cudaSetDevice(host.rank()), "cudaSetDevice");
    body(host);
  });
}

/// Ends a case: whatever the double has to say is a failure.
using shardkit_test::expect_clean;

/// Enqueues a copy of `from`, which stays until the stream has made it.
template <class T>
void put(device_buffer<T>& to, const std::vector<T>& from, cudaStream_t stream) {
  cuda_space::copy(to.data(), from.data(), from.size() * sizeof(T), stream);
}
/// `from` in device memory.
template <class T>
device_buffer<T> on_device_now(const std::vector<T>& from, cudaStream_t stream) {
  device_buffer<T> result(from.size());
  put(result, from, stream);
  cuda_check(cudaStreamSynchronize(stream), "cudaStreamSynchronize", stream);
  return result;
}
/// `from` in host memory, once the stream has come to its end.
template <class T, class... Comms>
std::vector<T> fetched(const device_buffer<T>& from, cudaStream_t stream, Comms&... comms) {
  std::vector<T> result(from.size());
  cuda_space::copy(result.data(), from.data(), from.size() * sizeof(T), stream);
  synchronize(stream, 20, comms...);
  return result;
}

}  // namespace nccl_test
