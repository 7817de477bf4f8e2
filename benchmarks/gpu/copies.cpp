// Splits, padding and gathers on device memory beside the copies of CUDA that move as much.
//
//   gpu_copies [--rounds=15] [--dry-run]
#include "timing.hpp"

#include <shardkit/backends/nccl.hpp>
#include <shardkit/core/buffer.hpp>
#include <shardkit/cuda/copy.hpp>
#include <shardkit/data/matrix_split.hpp>
#include <shardkit/data/pad_and_split.hpp>
#include <shardkit/launch/run_ranks.hpp>

namespace {

using namespace gpu_benchmark;
using shardkit::cuda_check;
using shardkit::cuda_space;
using shardkit::matrix_view;
using shardkit::participant;
using matrix = matrix_view<float, cuda_space>;

void copy_2d(matrix to, matrix from, cudaStream_t stream) {
  cuda_check(
      cudaMemcpy2DAsync(to.data(), to.row_stride() * sizeof(float), from.data(), from.row_stride() * sizeof(float),
                        from.columns() * sizeof(float), from.rows(), cudaMemcpyDeviceToDevice, stream),
      "cudaMemcpy2DAsync");
}

void run(shardkit::thread_communicator& threads, const options& how) {
  cuda_check(cudaSetDevice(0), "cudaSetDevice");
  const shardkit::cuda_stream owner;
  const cudaStream_t stream = owner.handle();
  const std::size_t total = how.dry_run ? std::size_t{1} << 16 : std::size_t{512} << 20;
  shardkit::buffer<float, cuda_space> from(total / sizeof(float)), to(from.size() + 4096);
  shardkit::fill_zero(from, stream);
  auto comm = shardkit::nccl_world(threads);
  std::printf(
      "GB/s of one half of a matrix of %s, counted once. The limit is cudaMemcpyAsync between two buffers.\n\n"
      "| bytes of a row's half | limit | split_columns, copied | cudaMemcpy2DAsync | pad_and_split_into | "
      "gather into columns | least over limit |\n|---|---|---|---|---|---|---|\n",
      bytes_text(total).c_str());
  for (const std::size_t row_bytes :
       {std::size_t{256}, std::size_t{1} << 10, std::size_t{4} << 10, std::size_t{16} << 10}) {
    const std::size_t columns = 2 * row_bytes / sizeof(float), rows = total / (columns * sizeof(float));
    const matrix whole(from.data(), rows, columns), half(to.data(), rows, columns / 2);
    const matrix half_of_whole = whole.column_range(columns / 2, columns / 2);
    const participant second(1, 2);
    // One row fewer than two ranks share evenly: the second rank pads.
    const matrix odd = whole.row_range(0, rows - 1), padded(to.data(), rows / 2, columns);
    const std::vector<double> took =
        measure(threads, stream, how,
                {{"",
                  [&] {
                    cuda_check(cudaMemcpyAsync(half.data(), from.data(), total / 2, cudaMemcpyDeviceToDevice, stream),
                               "cudaMemcpyAsync");
                  }},
                 {"",
                  [&] {
                    const matrix mine = shardkit::split_columns(second, whole);
                    cuda_space::copy_2d(half.data(), half.row_stride() * sizeof(float), mine.data(),
                                        mine.row_stride() * sizeof(float), row_bytes, rows, stream);
                  }},
                 {"", [&] { copy_2d(half, half_of_whole, stream); }},
                 {"", [&] { shardkit::pad_and_split_into(second, odd, padded, shardkit::repeat_last{}, {}, stream); }},
                 {"", [&] {
                    shardkit::gather_columns(comm, half, half_of_whole, shardkit::partition::balanced(columns / 2, 1),
                                             shardkit::view<float, cuda_space>(), stream);
                  }}});
    const auto rate = [&](double microseconds) { return 1e-3 * static_cast<double>(total / 2) / microseconds; };
    std::printf("| %s |", bytes_text(row_bytes).c_str());
    for (const double one : took) std::printf(" %.1f |", rate(one));
    std::printf(" %.3f |\n", took[0] / std::max({took[1], took[3], took[4]}));
  }
}

}  // namespace

int main(int argc, char** argv) try {
  const options how(argc, argv);
  shardkit::run_ranks(1, [&](shardkit::thread_communicator& threads) { run(threads, how); });
} catch (const std::exception& failure) {
  std::fprintf(stderr, "%s\n", failure.what());
  return 1;
}
