// A feed-forward block y = (x U^T) D^T, U [intermediate, hidden] and D [hidden, intermediate], cut over thread ranks
// that share one GPU, beside the whole block by two products of cuBLASLt. What sharding costs is what lies above the
// unsharded time: on one GPU there is nothing to win.
//
//   gpu_block [--rounds=15] [--dry-run]
#include "timing.hpp"

#include <shardkit/backends/cuda_threads.hpp>
#include <shardkit/core/buffer.hpp>
#include <shardkit/cuda/copy.hpp>
#include <shardkit/cuda/kernels.cuh>
#include <shardkit/cuda/ordered_reduce.cuh>
#include <shardkit/launch/run_ranks.hpp>
#include <shardkit/tensor/column_parallel_linear.hpp>
#include <shardkit/tensor/cublaslt_gemm.hpp>
#include <shardkit/tensor/row_parallel_linear.hpp>

#include <cuda_fp8.h>

struct e4m3 : __nv_fp8_e4m3 {
  using __nv_fp8_e4m3::__nv_fp8_e4m3;
};
template <>
struct shardkit::dtype_traits<e4m3> {
  static constexpr dtype value = dtype::f8e4m3;
};

namespace {

using namespace gpu_benchmark;
using shardkit::bfloat16;
using shardkit::cuda_check;
using shardkit::cuda_space;
using shardkit::matrix_view;
using shardkit::partition;

struct shape {
  const char* model;
  std::size_t hidden, intermediate;
};

template <class T>
using matrix = matrix_view<T, cuda_space>;

/// Weights of bf16, and of 8-bit floats with activations of the same. In the second case the engine's conversion
/// between the two products is left out, sharded or not.
template <class T>
auto weights(matrix<const T> values) {
  if constexpr (sizeof(T) == 1) return shardkit::f8_weights<T>{values};
  else return values;
}

/// The device memory of a block: rank r's slice of U and of D, inputs of both products, and what they make.
template <class T>
struct memory {
  memory(std::size_t rows, std::size_t hidden, std::size_t features, cudaStream_t stream)
      : up(features * hidden),
        down(hidden * features),
        x(rows * hidden),
        inner(rows * features),
        made(rows * features),
        y(rows * hidden) {
    for (auto* part : {&up, &down, &x, &inner}) shardkit::fill_zero(*part, stream);
  }
  shardkit::buffer<T, cuda_space> up, down, x, inner;
  shardkit::buffer<bfloat16, cuda_space> made, y;
};

template <class T>
void run(shardkit::thread_communicator& threads, const options& how, const char* type, const shape& of,
         std::size_t rows) {
  cuda_check(cudaSetDevice(0), "cudaSetDevice");
  const shardkit::cuda_stream owner;
  const cudaStream_t stream = owner.handle();
  auto comm = shardkit::cuda_thread_world(threads, {&shardkit::cuda_ordered_reduce});
  using communicator = shardkit::cuda_thread_communicator;
  const partition cut = partition::balanced(of.intermediate, comm.size(), 16);
  const std::size_t mine = cut.count(comm.rank());

  shardkit::buffer<std::byte, cuda_space> scratch(std::size_t{32} << 20);
  shardkit::cublaslt_gemm gemm({.workspace = view_of(scratch)});
  memory<T> own(rows, of.hidden, mine, stream);
  const auto up_shard = weights<T>(matrix<const T>(own.up.data(), mine, of.hidden));
  const auto down_shard = weights<T>(matrix<const T>(own.down.data(), of.hidden, mine));
  const matrix<const T> x(own.x.data(), rows, of.hidden), inner(own.inner.data(), rows, mine);
  const matrix<bfloat16> made(own.made.data(), rows, mine), y(own.y.data(), rows, of.hidden);
  const shardkit::column_parallel_linear<communicator, std::decay_t<decltype(up_shard)>> up(comm, up_shard, cut);
  const shardkit::row_parallel_linear<communicator, std::decay_t<decltype(down_shard)>> down(comm, down_shard, cut);
  const auto sharded = [&] {
    up.forward(x, made, gemm, stream);
    if constexpr (sizeof(T) == 1) down.forward(inner, y, gemm, stream);
    else down.forward(matrix<const T>(made), y, gemm, stream);
  };
  const double took = measure(threads, stream, how, {{"", sharded}})[0];

  double whole = 0;
  if (comm.is_root()) {
    memory<T> all(rows, of.hidden, of.intermediate, stream);
    const auto u = weights<T>(matrix<const T>(all.up.data(), of.intermediate, of.hidden));
    const auto d = weights<T>(matrix<const T>(all.down.data(), of.hidden, of.intermediate));
    const matrix<const T> all_x(all.x.data(), rows, of.hidden), all_inner(all.inner.data(), rows, of.intermediate);
    const matrix<bfloat16> all_made(all.made.data(), rows, of.intermediate), all_y(all.y.data(), rows, of.hidden);
    const shardkit::gemm_args<bfloat16, cuda_space> plain;
    shardkit::run_ranks(1, [&](shardkit::thread_communicator& alone) {
      cuda_check(cudaSetDevice(0), "cudaSetDevice");
      whole = measure(alone, stream, how, {{"", [&] {
                                              gemm(all_x, u, all_made, plain, stream);
                                              if constexpr (sizeof(T) == 1) gemm(all_inner, d, all_y, plain, stream);
                                              else gemm(matrix<const T>(all_made), d, all_y, plain, stream);
                                            }}})[0];
    });
    std::printf("| %s | %s | %zu | %d | %.1f | %.1f | %.3f |\n", of.model, type, rows, comm.size(), took, whole,
                took / whole);
  }
  threads.barrier();
}

}  // namespace

int main(int argc, char** argv) try {
  const options how(argc, argv);
  const std::vector<shape> shapes = how.dry_run
                                        ? std::vector<shape>{{"dry run", 64, 160}}
                                        : std::vector<shape>{{"Llama-3-8B", 4096, 14336}, {"Llama-3-70B", 8192, 28672}};
  const std::vector<std::size_t> row_counts =
      how.dry_run ? std::vector<std::size_t>{16} : std::vector<std::size_t>{1, 64, 512, 2048};
  int major = 0, minor = 0;
  cuda_check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0), "cudaDeviceGetAttribute");
  cuda_check(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, 0), "cudaDeviceGetAttribute");
  std::printf(
      "Microseconds.\n\n| shapes of | type | tokens | thread ranks | sharded | unsharded | ratio |\n"
      "|---|---|---|---|---|---|---|\n");
  for (const shape& of : shapes)
    for (const std::size_t rows : row_counts)
      for (const int ranks : {1, 2, 4}) {
        shardkit::run_ranks(ranks, [&](shardkit::thread_communicator& threads) {
          run<bfloat16>(threads, how, "bf16", of, rows);
          // cuBLASLt takes 8-bit floats by rows of 16.
          if (10 * major + minor >= 89 && rows % 16 == 0) run<e4m3>(threads, how, "fp8", of, rows);
        });
      }
} catch (const std::exception& failure) {
  std::fprintf(stderr, "%s\n", failure.what());
  return 1;
}
