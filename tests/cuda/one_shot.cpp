// The ordered reduction as the kernel of thread ranks on CUDA memory: one launch on each rank, which reads all inputs
// and writes all outputs.
#include "fixture.hpp"
#include "kernels.hpp"

#include <shardkit/backends/cuda_threads.hpp>
#include <shardkit/launch/run_ranks.hpp>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <vector>

namespace {

using namespace cuda_tests;
using namespace shardkit;

/// all_reduce of `count` elements that lie `shift` elements into their buffers, beside that of host memory.
template <class T>
void check_all_reduce(thread_communicator& threads, cuda_thread_communicator& world, std::size_t count,
                      std::size_t shift, reduction op) {
  CAPTURE(count);
  CAPTURE(shift);
  std::vector<T> values(count + shift), wanted(count);
  for (std::size_t i = 0; i < count; ++i)
    values[shift + i] =
        static_cast<T>(0.31f * static_cast<float>((7 * i + static_cast<std::size_t>(threads.rank())) % 61));
  threads.all_reduce(view<const T>(values.data() + shift, count), wanted, op);
  const auto in = on_device(values);
  buffer<T, cuda_space> out(count + shift);
  const cuda_stream stream;
  const view<const T, cuda_space> from(in.data() + shift, count);
  const view<T, cuda_space> to(out.data() + shift, count);
  threads.barrier();
  const int before = shardkit_double::calls("cudaLaunchKernel");
  threads.barrier();
  world.all_reduce(from, to, op, stream);
  threads.barrier();
  // Ranks whose share is empty launch nothing.
  const int most = static_cast<int>((count * sizeof(T) + 127) / 128);
  if (shardkit_double::active())
    CHECK(shardkit_double::calls("cudaLaunchKernel") - before == std::min(most, threads.size()));
  for (const bool in_place_too : {false, true}) {
    if (in_place_too) {
      cuda_space::copy(to.data(), from.data(), count * sizeof(T), stream);
      world.all_reduce(in_place(to), op, stream);
    }
    buffer<T, pinned_space> got(count);
    copy(got, to, stream);
    synchronize(stream, deadline, world);
    CHECK((count == 0 || std::memcmp(got.data(), wanted.data(), count * sizeof(T)) == 0));
  }
}

}  // namespace

TEST_CASE("Thread ranks all_reduce by one kernel each, with the bits of the host's") {
  set_kernel_stand_ins();
  for (const int ranks : {1, 2, 3, 4})
    for (const int devices : {1, 2}) {
      CAPTURE(ranks);
      CAPTURE(devices);
      const clean_machine machine;
      const int available = shardkit_double::active() ? devices : cuda_device_count();
      run_ranks(ranks, [&](thread_communicator& threads) {
        cuda_check(cudaSetDevice(threads.rank() % available), "cudaSetDevice");
        auto world = cuda_thread_world(threads, {&ordered_reduce_to_each});
        for (const std::size_t count : extents{0, 1, 31, 1000, 4099})
          for (const std::size_t shift : extents{0, 1}) {
            check_all_reduce<float>(threads, world, count, shift, sum);
            check_all_reduce<bfloat16>(threads, world, count, shift, average);
          }
      });
    }
}
