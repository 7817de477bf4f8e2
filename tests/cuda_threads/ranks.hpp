// Thread ranks over CUDA memory for the tests of this folder: any number of them, sharing the devices there are.
#pragma once

#include "reduce_on_host.hpp"

#include <doctest/doctest.h>
#include <double/control.hpp>
#include <shardkit/backends/cuda_threads.hpp>
#include <shardkit/cuda/copy.hpp>
#include <shardkit/launch/run_ranks.hpp>
#include <support/expect_clean.hpp>

#include <cstddef>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

namespace cuda_threads_test {

template <class T>
using device_buffer = buffer<T, cuda_space>;

inline cuda_thread_options with_kernel() {
  cuda_thread_options options;
  options.ordered_reduce = &reduce_on_host;
  return options;
}

/// Some ranks on some devices. On a machine with GPUs: on those it has.
struct placement {
  int ranks;
  int devices;
  bool reach = true;  ///< whether the devices reach each other's memory
};

/// body(threads) on each rank, the ranks taking the devices in turn. At the end, whatever the double has to say is a
/// failure.
inline void on_devices(const placement& where, const std::function<void(thread_communicator&)>& body) {
  CAPTURE(where.ranks);
  CAPTURE(where.devices);
  CAPTURE(where.reach);
  shardkit_double::set_device_count(where.devices);
  for (int from = 0; from < where.devices; ++from)
    for (int to = 0; to < where.devices; ++to)
      if (from != to) shardkit_double::set_peer_access(from, to, where.reach);
  // The threads meet by events alone: what one of them has waited for orders nothing of the others.
  shardkit_double::set_threads_order_by_events_only(true);
  const int devices = shardkit_double::active() ? where.devices : cuda_device_count();
  launch_options options;
  options.limits.operation = 20;
  options.on_failure = nullptr;
  run_ranks(where.ranks, options, [&](thread_communicator& threads) {
    cuda_check(cudaSetDevice(threads.rank() % devices), "cudaSetDevice");
    body(threads);
  });
  shardkit_test::expect_clean();
}
/// The same with a communicator of all ranks and a stream.
inline void over_world(const placement& where,
                       const std::function<void(cuda_thread_communicator&, cuda_space::stream)>& body) {
  on_devices(where, [&](thread_communicator& threads) {
    auto world = cuda_thread_world(threads, with_kernel());
    const cuda_stream stream;
    body(world, stream);
  });
}

/// `from` in device memory, there when the function returns.
template <class T>
device_buffer<T> on_device_now(const std::vector<T>& from, cuda_space::stream stream) {
  device_buffer<T> result(from.size());
  cuda_space::copy(result.data(), from.data(), from.size() * sizeof(T), stream);
  synchronize(stream, 20);
  return result;
}
/// `from` in host memory, once the stream has come to its end.
template <class T, class... Comms>
std::vector<T> fetched(const device_buffer<T>& from, cuda_space::stream stream, Comms&... comms) {
  std::vector<T> result(from.size());
  cuda_space::copy(result.data(), from.data(), from.size() * sizeof(T), stream);
  synchronize(stream, 20, comms...);
  return result;
}

}  // namespace cuda_threads_test
