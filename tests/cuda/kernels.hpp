// The kernels as the tests call them from code that is not nvcc's.
#pragma once

#include <shardkit/core/operations.hpp>
#include <shardkit/cuda/space.hpp>

#include <cstddef>
#include <cstdint>

namespace cuda_tests {

/// On the double: tells what each kernel does, by the same code that the device runs for one element.
void set_kernel_stand_ins();

template <class T>
struct kernels {
  using matrix = shardkit::matrix_view<T, shardkit::cuda_space>;
  using const_matrix = shardkit::matrix_view<const T, shardkit::cuda_space>;
  using candidates = shardkit::candidate<T>;
  using where = shardkit::at<shardkit::cuda_space>;

  static void add_bias(matrix rows, shardkit::view<const T, shardkit::cuda_space> bias, where w);
  static void add(matrix rows, const_matrix addend, where w);
  static void gather_rows(const_matrix table, std::size_t first_id,
                          shardkit::view<const std::int32_t, shardkit::cuda_space> ids, matrix rows, where w);
  static void silu_multiply(matrix gate, const_matrix up, where w);
  static void top_k(const_matrix scores, std::size_t first_index,
                    shardkit::matrix_view<candidates, shardkit::cuda_space> best, where w);
  static void merge_top_k(shardkit::view<candidates, shardkit::cuda_space> lists, std::size_t list_count, matrix scores,
                          shardkit::matrix_view<std::int32_t, shardkit::cuda_space> indices, where w);
};

void ordered_reduce(shardkit::reduction_kind kind, shardkit::dtype type, const void* const* inputs, int input_count,
                    void* out, std::size_t count, shardkit::at<shardkit::cuda_space> where);
void ordered_reduce_to_each(shardkit::reduction_kind kind, shardkit::dtype type, const void* const* inputs,
                            int input_count, void* const* outputs, int output_count, std::size_t count,
                            shardkit::at<shardkit::cuda_space> where);
void ordered_reduce_blocks(shardkit::reduction_kind kind, shardkit::dtype type, const void* in, int ranks, void* out,
                           std::size_t count, shardkit::cuda_space::stream stream);

}  // namespace cuda_tests
