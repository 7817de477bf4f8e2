// A linear layer whose input features are divided: rank r holds the columns of W that read its features, and the
// ranks' products are summed.
//
//   row_parallel_linear down(comm, weights, cut);           weights [out_features, cut.count(rank)]
//   down.forward(hidden, y, gemm, stream);                  hidden [rows, cut.count(rank)], y [rows, out_features]
//
// forward is `partial` (the GEMM) and `finish` (the sum, then bias and residual). An engine with a fused tail takes
// them apart: partial, reduce, and its own kernel.
#pragma once

#include <shardkit/comm/communicator.hpp>
#include <shardkit/tensor/detail/layer.hpp>

#include <cstddef>
#include <utility>

namespace shardkit {

/// Who adds bias and residual, which must happen once, not once per rank.
enum class bias_placement {
  after_reduce,    ///< `finish`, on every rank, after the sum
  rank0_epilogue,  ///< the GEMM of the first rank that has input features (rank 0, but for an empty shard)
  caller           ///< the caller; the layer does not touch them
};

/// What a plain (untagged) input is.
enum class row_input {
  sharded,    ///< this rank's features
  replicated  ///< all features, of which the layer reads this rank's
};

/// What a row-parallel layer may have beside its weights.
template <class T, class Space = host_space>
struct row_options {
  view<const T, Space> bias = {};                           ///< [out_features], whole on every rank, or null
  bias_placement placement = bias_placement::after_reduce;  ///< who adds bias and residual
  row_input input = row_input::sharded;                     ///< what a plain x is
  reduction combine = sum;                                  ///< or by_rank(sum)
};

/// Y = X W^T + b with W [out_features, in_features] divided by columns. T is the type of the activations and of what
/// travels; opaque weights name it as their value_type, or it is given.
template <class Communicator, class Weights, class T = typename Weights::value_type>
class row_parallel_linear {
 public:
  using space = typename Communicator::space;
  using where = at<space>;
  using input = detail::input_element<Weights, T>;  ///< of x: T, unless the weights name another
  using summand = matrix_view<const T, space>;      ///< a residual, or null for none

  /// `in_features` says which features each rank reads; ranks without any contribute zeros.
  row_parallel_linear(Communicator& comm, Weights weights, partition in_features, row_options<T, space> options = {},
                      call_site site = call_site::current())
      : comm_(&comm), weights_(std::move(weights)), cut_(std::move(in_features)), options_(options) {
    const participant who(comm, site);
    detail::require_parts(who, name, "the input features", cut_.parts());
    detail::require_held_once(who, name, "the input features", cut_);
    // The extents of an empty shard say nothing: its columns may be counted as 0 of 0.
    if (cut_.count(comm.rank()) != 0) detail::require_weight_columns(who, name, weights_, cut_.count(comm.rank()));
    if constexpr (detail::has_extents<Weights>)
      if (weights_.rows() != 0) detail::require_bias(who, name, options_.bias, weights_.rows());
    if (options_.placement == bias_placement::caller && options_.bias.data() != nullptr)
      who.reject(name,
                 "a bias was given that is left to the caller; leave it out of the options, or choose "
                 "after_reduce or rank0_epilogue");
    if (options_.combine.kind != reduction_kind::sum)
      who.reject(name, std::string("partial products are summed, not combined by ") + name_of(options_.combine.kind));
  }

  /// y [rows, out_features] = the whole result, the same bits on every rank. `x` is sharded by the same cut, or
  /// replicated (then each rank reads its features of it), or plain as options.input says. x and y may not overlap;
  /// y has no gaps between its rows. Ordered on the stream.
  template <class X, class Y, class Gemm>
  replicated<T, space> forward(const X& x, const Y& y, Gemm&& gemm, where w = {}) const {
    return forward(x, y, gemm, summand(), w);
  }
  /// The same with `residual` [rows, out_features], the same on every rank, added once. It may not overlap y.
  template <class X, class Y, class Gemm>
  replicated<T, space> forward(const X& x, const Y& y, Gemm&& gemm, summand residual, where w = {}) const {
    const participant who(*comm_, w.site);
    const auto out = detail::matrix_argument<T, space>(y);
    require_summands(who, out, residual);
    require_reducible(who, out);
    product(who, x, out, gemm, residual, w);
    combine(out, w);
    add_after(out, residual, w);
    return {out};
  }

  /// y [rows, out_features] = this rank's summand: zeros where it has no features. No communication. Under
  /// rank0_epilogue one rank's summand holds the bias and the residual.
  template <class X, class Y, class Gemm>
  shardkit::partial<T, space> partial(const X& x, const Y& y, Gemm&& gemm, where w = {}) const {
    return partial(x, y, gemm, summand(), w);
  }
  /// The same with a residual, which only rank0_epilogue adds here; otherwise it belongs to `finish`.
  template <class X, class Y, class Gemm>
  shardkit::partial<T, space> partial(const X& x, const Y& y, Gemm&& gemm, summand residual, where w = {}) const {
    const participant who(*comm_, w.site);
    const auto out = detail::matrix_argument<T, space>(y);
    require_summands(who, out, residual);
    if (residual.data() != nullptr && options_.placement != bias_placement::rank0_epilogue)
      who.reject(name, "partial adds a residual under rank0_epilogue only; pass it to finish");
    product(who, x, out, gemm, residual, w);
    return {out};
  }

  /// Sums the ranks' summands in place, the same bits on every rank, and adds nothing.
  template <class Y>
  replicated<T, space> reduce(const Y& y, where w = {}) const {
    const auto out = detail::partial_input<T, space>(y);
    require_reducible(participant(*comm_, w.site), out);
    combine(out, w);
    return {out};
  }

  /// Sums the ranks' summands in place and adds what is to be added after the sum.
  template <class Y>
  replicated<T, space> finish(const Y& y, where w = {}) const {
    return finish(y, summand(), w);
  }
  /// The same with `residual` [rows, out_features], the same on every rank, added once.
  template <class Y>
  replicated<T, space> finish(const Y& y, summand residual, where w = {}) const {
    const participant who(*comm_, w.site);
    const auto out = detail::partial_input<T, space>(y);
    require_summands(who, out, residual);
    if (residual.data() != nullptr && options_.placement == bias_placement::rank0_epilogue)
      who.reject(name, "under rank0_epilogue the residual belongs to the GEMM; pass it to partial");
    require_reducible(who, out);
    combine(out, w);
    add_after(out, residual, w);
    return {out};
  }

  /// The one that the layer was made on.
  Communicator& communicator() const noexcept { return *comm_; }
  /// This rank's columns, as given.
  const Weights& weights() const noexcept { return weights_; }
  /// Which input features each rank reads.
  const partition& cut() const noexcept { return cut_; }

 private:
  static constexpr const char* name = "row_parallel_linear";

  template <class X, class Gemm>
  void product(const participant& who, const X& x, matrix_view<T, space> out, Gemm& gemm, summand residual,
               const where& w) const {
    const auto in = shard_of(who, x);
    std::size_t out_features = out.columns();
    if constexpr (detail::has_extents<Weights>)
      if (weights_.rows() != 0) out_features = weights_.rows();
    detail::require_extents(who, name, "y", out, in.rows(), out_features);
    if (out.empty()) return;
    gemm_args<T, space> args;
    if (options_.placement == bias_placement::rank0_epilogue && comm_->rank() == cut_.owner(0)) {
      args.bias = options_.bias;
      args.residual = residual;
    } else if (in.columns() == 0) {
      // Not every GEMM knows what an empty product is.
      return fill_zero(out, w);
    }
    detail::multiply(who, name, gemm, in, weights_, out, args, w);
  }

  template <class X>
  matrix_view<const input, space> shard_of(const participant& who, const X& x) const {
    const auto in = detail::sharded_input<input, space>(x);
    const std::size_t offset = cut_.offset(comm_->rank()), count = cut_.count(comm_->rank());
    if constexpr (detail::is_sharded<X>::value) {
      if (x.cut != cut_)
        who.reject(name, "x is cut as " + detail::counts_of(x.cut) + " and the layer as " + detail::counts_of(cut_) +
                             "; give both layers the same partition");
    }
    if (detail::is_replicated<X>::value || (!detail::is_tagged<X> && options_.input == row_input::replicated)) {
      detail::require_extents(who, name, "x", in, in.rows(), cut_.total());
      return in.column_range(offset, count);
    }
    detail::require_extents(who, name, "x", in, in.rows(), count);
    return in;
  }

  void require_summands(const participant& who, matrix_view<T, space> out, summand residual) const {
    detail::require_bias(who, name, options_.bias, out.columns());
    if (residual.data() == nullptr) return;
    if (options_.placement == bias_placement::caller)
      who.reject(name,
                 "a residual was passed that is left to the caller; leave it out, or choose after_reduce or "
                 "rank0_epilogue");
    detail::require_extents(who, name, "the residual", residual, out.rows(), out.columns());
  }
  void require_reducible(const participant& who, matrix_view<T, space> out) const {
    if (!out.contiguous())
      who.reject(name, "the rows of y have gaps between them; partial sums are reduced in a matrix without gaps");
  }
  void combine(matrix_view<T, space> out, const where& w) const {
    comm_->all_reduce(in_place(out.flat()), options_.combine, w);
  }

  void add_after(matrix_view<T, space> out, summand residual, const where& w) const {
    if (options_.placement != bias_placement::after_reduce || out.empty()) return;
    if (options_.bias.data() != nullptr) operations<space>::add_bias(out, options_.bias, w);
    if (residual.data() != nullptr) operations<space>::add(out, residual, w);
  }

  Communicator* comm_;
  Weights weights_;
  partition cut_;
  row_options<T, space> options_;
};

}  // namespace shardkit
