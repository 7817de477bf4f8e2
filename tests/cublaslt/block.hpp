// A small transformer block of the parallel layers on device memory: what nvcc compiles, since it needs the space
// operations of cuda/kernels.cuh, and what the tests compare it with.
#pragma once

#include "matrices.hpp"

#include <shardkit/comm/any_communicator.hpp>
#include <shardkit/core/partition.hpp>
#include <shardkit/cuda/stream.hpp>
#include <shardkit/tensor/column_parallel_linear.hpp>
#include <shardkit/tensor/cublaslt_gemm.hpp>
#include <shardkit/tensor/row_parallel_linear.hpp>

#include <cstddef>
#include <cstdint>
#include <vector>

namespace cublaslt_tests {

using device_communicator = shardkit::any_communicator<shardkit::cuda_space>;

/// Weights, small enough that the values stay small.
inline dense::matrix weights(std::size_t rows, std::size_t columns, unsigned seed) {
  dense::matrix result = dense::exact(rows, columns, seed);
  for (double& value : result.values) value /= 4;
  return result;
}

/// All of the block in double.
struct block {
  static constexpr std::size_t hidden = 8, heads = 4, kv_heads = 2, head_size = 2, features = 7, words = 11, wide = 6,
                               k = 3;

  std::vector<std::int32_t> ids{4, 10, 0, 4, 7};
  dense::matrix table = dense::exact(words, hidden, 1), q = weights(heads * head_size, hidden, 2),
                kv = weights(2 * kv_heads * head_size, hidden, 3),
                qkv_bias = weights(1, (heads + 2 * kv_heads) * head_size, 4), o = weights(hidden, heads*head_size, 5),
                o_bias = weights(1, hidden, 6), gate = weights(features, hidden, 7), up = weights(features, hidden, 8),
                down = weights(hidden, features, 9), head = weights(wide, hidden, 10), head_bias = weights(1, wide, 11);

  std::size_t rows() const { return ids.size(); }
};

/// What a rank has of it in the end; q, k and v are its shards.
struct answers {
  dense::matrix embedded, q, k, v, attended, fed, whole, values;
  std::vector<std::int32_t> best, top;
};

/// Runs the layers: weights fused or separate, biases after the reduction or in the first rank's GEMM.
template <class T>
answers run_block(const block& whole, device_communicator& comm, cudaStream_t stream, bool fused, bool bias_in_gemm);

/// Tells the double what the kernels of nvcc's code do.
void set_kernels();

/// Column and row layer on fixed memory, for capturing.
struct feed_forward {
  static constexpr std::size_t rows = 3, hidden = 8, features = 10;

  feed_forward(device_communicator& comm, cudaStream_t stream)
      : cut(shardkit::partition::balanced(features, comm.size())),
        count(cut.count(comm.rank())),
        x(dense::exact(rows, hidden, 1), stream),
        up(dense::exact(features, hidden, 2), cut.offset(comm.rank()), count, 0, hidden, stream),
        up_bias(dense::exact(1, features, 3), 0, 1, cut.offset(comm.rank()), count, stream),
        down(dense::exact(hidden, features, 4), 0, hidden, cut.offset(comm.rank()), count, stream),
        down_bias(dense::exact(1, hidden, 5), stream),
        inner(dense::matrix(rows, features), 0, rows, 0, count, stream),
        y(dense::matrix(rows, hidden), stream),
        memory(1 << 16),
        gemm({.workspace = view_of(memory)}) {}

  /// The two layers.
  void enqueue(device_communicator& comm, cudaStream_t stream);
  /// The kernel behind the reduction, alone.
  void add_bias(cudaStream_t stream);

  shardkit::partition cut;
  std::size_t count;
  on_device<float> x, up, up_bias, down, down_bias, inner, y;
  shardkit::buffer<std::byte, shardkit::cuda_space> memory;
  shardkit::cublaslt_gemm gemm;
};

}  // namespace cublaslt_tests
