// The one-shot all_reduce of thread ranks that share one GPU beside a copy on the device that reads and writes as many
// bytes: in place, two ranks read 2 n bytes and write 2 n.
//
//   gpu_reduction [--rounds=15] [--dry-run]
#include "timing.hpp"

#include <shardkit/backends/cuda_threads.hpp>
#include <shardkit/core/buffer.hpp>
#include <shardkit/cuda/copy.hpp>
#include <shardkit/cuda/ordered_reduce.cuh>
#include <shardkit/launch/run_ranks.hpp>

namespace {

using namespace gpu_benchmark;
using shardkit::cuda_check;
using shardkit::cuda_space;

template <class T>
void run(shardkit::thread_communicator& threads, const options& how, const char* type) {
  cuda_check(cudaSetDevice(0), "cudaSetDevice");
  const shardkit::cuda_stream owner;
  const cudaStream_t stream = owner.handle();
  auto comm = shardkit::cuda_thread_world(threads, {&shardkit::cuda_ordered_reduce});
  const std::vector<std::size_t> sizes = how.dry_run
                                             ? std::vector<std::size_t>{64, 4096}
                                             : std::vector<std::size_t>{4096, 1 << 20, 16 << 20, 64 << 20, 256 << 20};
  shardkit::buffer<T, cuda_space> data(sizes.back() / sizeof(T)), other(data.size());
  shardkit::fill_zero(data, stream);
  for (const std::size_t bytes : sizes) {
    const shardkit::view<T, cuda_space> part(data.data(), bytes / sizeof(T));
    const std::vector<double> took =
        measure(threads, stream, how,
                {{"", [&] { comm.all_reduce(shardkit::in_place(part), shardkit::sum, stream); }},
                 {"", [&] {  // every rank: together as many bytes as the all_reduce
                    cuda_check(cudaMemcpyAsync(other.data(), data.data(), bytes, cudaMemcpyDeviceToDevice, stream),
                               "cudaMemcpyAsync");
                  }}});
    if (comm.is_root())
      std::printf("| %d | %s | %s | %.1f | %.1f | %.3f |\n", comm.size(), type, bytes_text(bytes).c_str(), took[0],
                  took[1], took[1] / took[0]);
  }
}

}  // namespace

int main(int argc, char** argv) try {
  const options how(argc, argv);
  std::printf(
      "Microseconds; share of the bandwidth of the copy.\n\n| thread ranks | type | bytes | all_reduce | copy | share "
      "|\n|---|---|---|---|---|---|\n");
  for (const int ranks : {2, 4})
    shardkit::run_ranks(ranks, [&](shardkit::thread_communicator& threads) {
      run<float>(threads, how, "f32");
      run<shardkit::bfloat16>(threads, how, "bf16");
    });
} catch (const std::exception& failure) {
  std::fprintf(stderr, "%s\n", failure.what());
  return 1;
}
