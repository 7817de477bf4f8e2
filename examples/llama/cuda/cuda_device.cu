// All that nvcc compiles: the launches of this engine's kernels, and the model, which uses those of the library.
#include "cuda_device.hpp"

#include "../model.hpp"
#include "blocks.hpp"

#include <shardkit/cuda/kernels.cuh>

namespace llama {
namespace blocks {

struct team {
  float* shared;

  __device__ unsigned thread() const { return threadIdx.x; }
  __device__ unsigned threads() const { return blockDim.x; }
  __device__ void meet() const { __syncthreads(); }
};

template <class Body>
__global__ void __launch_bounds__(most_threads) run(Body body) {
  __shared__ float shared[Body::shared_floats];
  body(blockIdx.x, team{shared});
}

namespace {

/// Enqueues so many blocks, with about as many threads as they have work for.
template <class Body>
void launch(const char* name, const Body& body, std::size_t count, std::size_t work, cudaStream_t stream) {
  if (count == 0 || work == 0) return;
  unsigned threads = 32;
  while (threads < work && threads < most_threads) threads *= 2;
  run<<<static_cast<unsigned>(count), threads, 0, stream>>>(body);
  shardkit::cuda_check(cudaGetLastError(), name, stream);
}

template <class T>
rows_of<T> rows(shardkit::matrix_view<T, shardkit::cuda_space> of) {
  return {of.data(), of.row_stride()};
}

}  // namespace
}  // namespace blocks

using blocks::rows;

void cuda_device::rms_norm(const_matrix x, shardkit::view<const float, space> weight, float epsilon, matrix out) {
  blocks::launch("rms_norm<<<>>>", blocks::rms_norm{rows(x), weight.data(), epsilon, rows(out), x.columns()}, x.rows(),
                 x.columns(), stream.handle());
}

void cuda_device::rotate(matrix x, const rotary_table& table, std::size_t first_position) {
  const std::size_t half = table.head_dim / 2, heads = x.columns() / table.head_dim;
  blocks::launch(
      "rotate<<<>>>",
      blocks::rotate{
          rows(x), {table.cosine.data(), half}, {table.sine.data(), half}, heads, table.head_dim, first_position},
      x.rows(), heads * half, stream.handle());
}

void cuda_device::store(const_matrix k, const_matrix v, std::size_t first_position, kv_cache& cache) {
  blocks::launch("store<<<>>>",
                 blocks::store{rows(k), rows(v), cache.keys.data(), cache.values.data(), cache.kv_heads, cache.head_dim,
                               cache.positions, first_position},
                 k.rows(), k.columns(), stream.handle());
}

void cuda_device::attend(const_matrix q, const kv_cache& cache, const head_list& heads, std::size_t head_dim,
                         std::size_t first_position, matrix out) {
  blocks::launch("attend<<<>>>",
                 blocks::attend{rows(q), cache.keys.data(), cache.values.data(), heads.data(), heads.size(), head_dim,
                                cache.positions, first_position, rows(out)},
                 q.rows() * heads.size(), blocks::attend::shared_floats, stream.handle());
}

void cuda_device::silu_multiply(matrix gate, const_matrix up) {
  shardkit::operations<space>::silu_multiply(gate, up, stream);
}

shardkit::cuda_reduce_function cuda_device::ordered_reduce() { return &shardkit::cuda_ordered_reduce; }

// Its layers use the library's kernels.
template class model<cuda_device>;

}  // namespace llama
