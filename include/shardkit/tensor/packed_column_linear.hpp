// Column-parallel layers that read the same input and whose outputs lie side by side: query, key and value, or gate
// and up. Each segment is divided by itself, since a contiguous cut of the whole would give some ranks queries only.
// The weights are one fused matrix, multiplied in one go, or one matrix for each segment.
#pragma once

#include <shardkit/data/segmented_partition.hpp>
#include <shardkit/tensor/detail/layer.hpp>

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

namespace shardkit {

/// [rows, cut.count(rank)] as the segments of which it consists, each of them sharded. Points to the cut.
template <class T, class Space = host_space>
class sharded_segments {
 public:
  sharded_segments(matrix_view<T, Space> data, const segmented_partition& cut, int rank) noexcept
      : data_(data), cut_(&cut), rank_(rank) {}

  /// Number of segments.
  std::size_t size() const noexcept { return cut_->segments().size(); }
  /// All segments, side by side.
  matrix_view<T, Space> data() const noexcept { return data_; }
  /// One segment, [rows, its count(rank)].
  sharded<T, Space> operator[](std::size_t segment) const noexcept {
    const segment_range range = cut_->range(rank_, segment);
    return {data_.column_range(range.shard_offset, range.count), cut_->segments()[segment]};
  }

 private:
  matrix_view<T, Space> data_;
  const segmented_partition* cut_;
  int rank_;
};

/// One GEMM for all segments: weights [cut.count(rank), in_features], the rank's rows of each segment one below the
/// other, as split_segments and the loader make them.
template <class T, class Space = host_space>
struct fused_options {
  view<const T, Space> bias = {};  ///< this rank's [cut.count(rank)], or null
};

/// One GEMM for each segment.
template <class T, class Space = host_space>
struct separate_options {
  std::vector<view<const T, Space>> biases = {};  ///< this rank's, one for each segment (null: none), or no vector
};

/// Several column-parallel layers in one; see the top of this file.
template <class Communicator, class Weights, class T = typename Weights::value_type>
class packed_column_linear {
 public:
  using space = typename Communicator::space;
  using where = at<space>;
  using input = detail::input_element<Weights, T>;  ///< of x: T, unless the weights name another

  /// `fused` [cut.count(rank), in_features]: the rank's rows of each segment, one segment below the other.
  packed_column_linear(Communicator& comm, Weights fused, segmented_partition out_features,
                       fused_options<T, space> options = {}, call_site site = call_site::current())
      : comm_(&comm), cut_(std::move(out_features)) {
    const participant who(comm, site);
    detail::require_parts(who, name, "the output features", cut_.parts());
    add(who, std::move(fused), options.bias, 0, cut_.count(comm.rank()));
  }

  /// `separate`: the rank's rows of each segment, [segment's count(rank), in_features].
  packed_column_linear(Communicator& comm, std::vector<Weights> separate, segmented_partition out_features,
                       separate_options<T, space> options = {}, call_site site = call_site::current())
      : comm_(&comm), cut_(std::move(out_features)) {
    const participant who(comm, site);
    detail::require_parts(who, name, "the output features", cut_.parts());
    const std::size_t count = cut_.segments().size();
    if (separate.size() != count || (!options.biases.empty() && options.biases.size() != count))
      who.reject(name, std::to_string(separate.size()) + " weights and " + std::to_string(options.biases.size()) +
                           " biases were given for " + std::to_string(count) +
                           " segments; give one weight for each, and one bias for each or none");
    for (std::size_t i = 0; i < count; ++i) {
      const segment_range range = cut_.range(comm.rank(), i);
      add(who, std::move(separate[i]), options.biases.empty() ? view<const T, space>() : options.biases[i],
          range.shard_offset, range.count);
    }
  }

  /// y [rows, cut.count(rank)] = this rank's features of every segment, side by side. `x` [rows, in_features] is
  /// replicated or plain; x and y may not overlap. No communication.
  template <class X, class Y, class Gemm>
  sharded_segments<T, space> forward(const X& x, const Y& y, Gemm&& gemm, where w = {}) const {
    const auto in = detail::replicated_input<input, space>(x);
    const auto out = detail::matrix_argument<T, space>(y);
    const participant who(*comm_, w.site);
    detail::require_extents(who, name, "y", out, in.rows(), cut_.count(comm_->rank()));
    for (const part& each : parts_) {
      if constexpr (detail::has_extents<Weights>)
        if (each.count != 0) detail::require_extents(who, name, "x", in, in.rows(), each.weights.columns());
      if (each.count == 0 || in.rows() == 0) continue;
      gemm_args<T, space> args;
      args.bias = each.bias;
      detail::multiply(who, name, gemm, in, each.weights, out.column_range(each.offset, each.count), args, w);
    }
    return {out, cut_, comm_->rank()};
  }

  /// The one that the layer was made on.
  Communicator& communicator() const noexcept { return *comm_; }
  /// Which output features of each segment each rank makes.
  const segmented_partition& cut() const noexcept { return cut_; }

 private:
  static constexpr const char* name = "packed_column_linear";

  // One GEMM: columns [offset, offset + count) of y.
  struct part {
    Weights weights;
    view<const T, space> bias;
    std::size_t offset, count;
  };

  void add(const participant& who, Weights weights, view<const T, space> bias, std::size_t offset, std::size_t count) {
    detail::require_weight_rows(who, name, weights, count);
    detail::require_bias(who, name, bias, count);
    parts_.push_back({std::move(weights), bias, offset, count});
  }

  Communicator* comm_;
  segmented_partition cut_;
  std::vector<part> parts_;
};

template <class Communicator, class Weights>
packed_column_linear(Communicator&, std::vector<Weights>, segmented_partition)
    -> packed_column_linear<Communicator, Weights>;

}  // namespace shardkit
