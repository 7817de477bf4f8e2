// A linear layer whose output features are divided: rank r holds the rows of W that make its features. No
// communication, unless the output is gathered.
//
//   column_parallel_linear up(comm, weights, cut);          weights [cut.count(rank), in_features]
//   up.forward(x, hidden, gemm, stream);                    x [rows, in_features], the same on every rank
//                                                           hidden [rows, cut.count(rank)]
//
// Layers own nothing: communicator, weights and bias outlive them. They allocate nothing after construction.
#pragma once

#include <shardkit/data/matrix_split.hpp>
#include <shardkit/tensor/detail/layer.hpp>

#include <cstddef>
#include <utility>

namespace shardkit {

/// What a column-parallel layer may have beside its weights.
template <class T, class Space = host_space>
struct column_options {
  view<const T, Space> bias = {};  ///< this rank's [cut.count(rank)], or null
};

/// Y = X W^T + b with W [out_features, in_features] divided by rows. T is the type of the activations; opaque weights
/// name it as their value_type, or it is given.
template <class Communicator, class Weights, class T = typename Weights::value_type>
class column_parallel_linear {
 public:
  using space = typename Communicator::space;
  using where = at<space>;
  using input = detail::input_element<Weights, T>;  ///< of x: T, unless the weights name another

  /// `out_features` says which features each rank makes; ranks without any take part all the same.
  column_parallel_linear(Communicator& comm, Weights weights, partition out_features,
                         column_options<T, space> options = {}, call_site site = call_site::current())
      : comm_(&comm), weights_(std::move(weights)), cut_(std::move(out_features)), options_(options) {
    const participant who(comm, site);
    detail::require_parts(who, name, "the output features", cut_.parts());
    detail::require_weight_rows(who, name, weights_, cut_.count(comm.rank()));
    detail::require_bias(who, name, options_.bias, cut_.count(comm.rank()));
  }

  /// y [rows, cut.count(rank)] = this rank's features of `x` [rows, in_features], replicated or plain. x and y may
  /// not overlap; rows may have gaps. Runs on the stream; no communication.
  template <class X, class Y, class Gemm>
  sharded<T, space> forward(const X& x, const Y& y, Gemm&& gemm, where w = {}) const {
    const auto in = detail::replicated_input<input, space>(x);
    const auto out = detail::matrix_argument<T, space>(y);
    const participant who(*comm_, w.site);
    detail::require_extents(who, name, "y", out, in.rows(), cut_.count(comm_->rank()));
    multiply(who, in, out, gemm, w);
    return {out, cut_};
  }

  /// Bytes that forward_gathered needs for so many rows: none for a single row or a single rank.
  std::size_t workspace_bytes(std::size_t rows) const noexcept {
    return gather_columns_workspace(rows, cut_) * sizeof(T);
  }

  /// y [rows, out_features] = all features on every rank; they may be divided unevenly. `workspace` has at least
  /// workspace_bytes(rows) and is free again when the stream has passed the call.
  template <class X, class Y, class Gemm>
  replicated<T, space> forward_gathered(const X& x, const Y& y, Gemm&& gemm, view<std::byte, space> workspace,
                                        where w = {}) const {
    const auto in = detail::replicated_input<input, space>(x);
    const auto out = detail::matrix_argument<T, space>(y);
    const participant who(*comm_, w.site);
    const std::size_t rows = in.rows();
    detail::require_extents(who, name, "y", out, rows, cut_.total());
    const auto blocks = detail::workspace_of<T>(who, name, workspace, gather_columns_workspace(rows, cut_));
    const std::size_t offset = cut_.offset(comm_->rank()), count = cut_.count(comm_->rank());
    // The shard is made where the gather wants it, so that it need not be copied there.
    const matrix_view<T, space> shard = blocks.empty()
                                            ? out.column_range(offset, count)
                                            : matrix_view<T, space>(blocks.data() + rows * offset, rows, count);
    multiply(who, in, shard, gemm, w);
    gather_columns(*comm_, shard, out, cut_, blocks, w);
    return {out};
  }

  /// The one that the layer was made on.
  Communicator& communicator() const noexcept { return *comm_; }
  /// This rank's rows, as given.
  const Weights& weights() const noexcept { return weights_; }
  /// Which output features each rank makes.
  const partition& cut() const noexcept { return cut_; }

 private:
  static constexpr const char* name = "column_parallel_linear";

  template <class Gemm>
  void multiply(const participant& who, matrix_view<const input, space> in, matrix_view<T, space> out, Gemm& gemm,
                const where& w) const {
    if constexpr (detail::has_extents<Weights>) {
      if (weights_.rows() != 0) detail::require_extents(who, name, "x", in, in.rows(), weights_.columns());
    }
    if (out.empty()) return;
    gemm_args<T, space> args;
    args.bias = options_.bias;
    detail::multiply(who, name, gemm, in, weights_, out, args, w);
  }

  Communicator* comm_;
  Weights weights_;
  partition cut_;
  column_options<T, space> options_;
};

}  // namespace shardkit
