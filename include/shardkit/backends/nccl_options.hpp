// What a NCCL communicator is made with; the same on every rank.
#pragma once

#include <shardkit/backends/nccl_api.hpp>
#include <shardkit/comm/deadlines.hpp>
#include <shardkit/core/dtype.hpp>
#include <shardkit/core/reduction.hpp>

#include <cstddef>

namespace shardkit {

/// Combines in rank order, on a stream: out[i] = in[0 * count + i] op in[1 * count + i] op ... for i < count, where
/// `in` holds one block of `count` elements for each of `ranks` ranks. 16-bit floats are accumulated in f32; minimum
/// and maximum propagate NaN and order -0 below +0; an average divides the sum. Only enqueues; throws where it cannot.
using nccl_ordered_reduce = void (*)(reduction_kind kind, dtype type, const void* in, int ranks, void* out,
                                     std::size_t count, cudaStream_t stream);

/// The same on every rank.
struct nccl_options {
  /// NCCL's functions: those of the program, or another library's.
  nccl_api api = nccl_api::of_program();
  /// `init` is that of making a communicator, `operation` that of enqueueing a call, `abort` that of stopping after a
  /// failure.
  deadlines limits;
  /// What NCCL cannot do as the library defines it is gathered and combined by this kernel: by_rank, minimum and
  /// maximum of floats, bit operations, 16-bit integers. Null: such calls throw unsupported_error.
  nccl_ordered_reduce ordered_reduce = nullptr;
  /// Minimum and maximum of floats by NCCL itself, which drops NaN where another rank has a number and leaves the sign
  /// of a zero open.
  bool native_extremes = false;
  /// Device memory that `ordered_reduce` gathers to, taken at the first such call; more elements go in pieces.
  std::size_t workspace_bytes = std::size_t{8} << 20;
};

}  // namespace shardkit
