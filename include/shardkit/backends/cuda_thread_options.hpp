// What a communicator of thread ranks over CUDA memory is made with; the same on every rank.
#pragma once

#include <shardkit/core/dtype.hpp>
#include <shardkit/core/reduction.hpp>
#include <shardkit/cuda/space.hpp>

#include <cstddef>

namespace shardkit {

/// Combines in rank order, on a stream: outputs[k][i] = inputs[0][i] op inputs[1][i] op ... for i < count and every k.
/// An output may be one of the inputs. 16-bit floats are accumulated in f32; minimum and maximum propagate NaN and
/// order -0 below +0; an average divides the sum. Only enqueues; throws where it cannot.
using cuda_reduce_function = void (*)(reduction_kind kind, dtype type, const void* const* inputs, int input_count,
                                      void* const* outputs, int output_count, std::size_t count, at<cuda_space> where);

/// The same on every rank.
struct cuda_thread_options {
  /// The kernel of the reductions. In a file that nvcc compiles: &cuda_ordered_reduce of cuda/ordered_reduce.cuh; files
  /// of other compilers get its address from there. Null: reductions throw unsupported_error.
  cuda_reduce_function ordered_reduce = nullptr;
  /// Where a rank's GPU cannot reach a peer's memory, reductions copy to this much device memory first. It is taken
  /// when the communicator is made, and only there.
  std::size_t workspace_bytes = std::size_t{8} << 20;
};

}  // namespace shardkit
