// The feed-forward block of Llama and its relatives: y = (activation(x Gate^T) * (x Up^T)) Down^T, gate and up
// column-parallel, down row-parallel, one all_reduce.
//
//   gated_mlp mlp(comm, gate_up, down, partition::balanced(intermediate, comm.size()));
//   mlp.forward(x, y, gemm, silu_multiply(), workspace, stream);
#pragma once

#include <shardkit/tensor/packed_column_linear.hpp>
#include <shardkit/tensor/row_parallel_linear.hpp>

#include <algorithm>
#include <cstddef>
#include <string>
#include <utility>
#include <vector>

namespace shardkit {

/// gate = silu(gate) * up, where silu(x) = x / (1 + exp(-x)): the activation of Llama.
struct silu_multiply {
  template <class T, class Space>
  void operator()(matrix_view<T, Space> gate, matrix_view<T, Space> up, at<Space> where = {}) const {
    operations<Space>::silu_multiply(gate, matrix_view<const T, Space>(up), where);
  }
};

/// Cuts the feed-forward features so that all ranks have the same work although their attention differs (9 heads over
/// 4 ranks). `attention_cost[r]` is what rank r does per token outside of the block and `feature_cost` what one
/// feature costs, in one unit: weights read, say, 3 * hidden for a feature and 2 * head_size * hidden for a query head
/// plus as much for a key/value head. Ranks above the common level get no features.
///
/// For blocks in which the ranks do not meet between attention and feed-forward, and to even out memory. Where an
/// all_reduce stands between the two, as in Llama, the ranks wait there in any case, and a balanced cut is faster.
template <class Costs>
partition level_features(std::size_t features, const Costs& attention_cost, double feature_cost,
                         std::size_t granularity = 1) {
  const std::vector<double> cost(attention_cost.begin(), attention_cost.end());
  if (!(feature_cost > 0)) throw usage_error("level_features: the cost of a feature must be positive");
  // Fill up from the least loaded rank, until all the work of the block is placed.
  std::vector<double> ascending = cost;
  std::sort(ascending.begin(), ascending.end());
  const double work = static_cast<double>(features) * feature_cost;
  double level = 0, below = 0;
  for (std::size_t ranks = 0; ranks < ascending.size(); ++ranks) {
    below += ascending[ranks];
    level = (work + below) / static_cast<double>(ranks + 1);
    if (ranks + 1 < ascending.size() && level <= ascending[ranks + 1]) break;
  }
  std::vector<double> weights;
  for (double own : cost) weights.push_back(std::max(0.0, level - own));
  if (features == 0) weights.assign(cost.size(), 1.0);
  return partition::weighted(features, weights, granularity);
}

/// One feed-forward block; see the top of this file.
template <class Communicator, class Weights, class T = typename Weights::value_type>
class gated_mlp {
 public:
  using space = typename Communicator::space;
  using where = at<space>;
  using summand = matrix_view<const T, space>;  ///< a residual, or null for none

  /// `gate_up` [2 * features.count(rank), hidden]: the rank's gate rows, below them its up rows. `down`
  /// [hidden, features.count(rank)].
  gated_mlp(Communicator& comm, Weights gate_up, Weights down, const partition& features,
            row_options<T, space> down_options = {}, call_site site = call_site::current())
      : gate_up_(comm, std::move(gate_up), segmented_partition::repeated(2, features), {}, site),
        down_(comm, std::move(down), features, down_options, site) {}

  /// Gate and up apart, [features.count(rank), hidden] each.
  gated_mlp(Communicator& comm, Weights gate, Weights up, Weights down, const partition& features,
            row_options<T, space> down_options = {}, call_site site = call_site::current())
      : gate_up_(comm, std::vector<Weights>{std::move(gate), std::move(up)}, segmented_partition::repeated(2, features),
                 {}, site),
        down_(comm, std::move(down), features, down_options, site) {}

  /// Bytes that forward needs on this rank for so many rows.
  std::size_t workspace_bytes(std::size_t rows) const noexcept { return rows * columns() * sizeof(T); }

  /// y [rows, hidden] from x [rows, hidden], replicated or plain, the same bits on every rank.
  /// activation(gate, up, where) gets two matrices [rows, features.count(rank)] and leaves the product in
  /// gate. x and y (and a residual) may not overlap. `workspace` has workspace_bytes(rows) and is free again when the
  /// stream has passed the call.
  template <class X, class Y, class Gemm, class Activation>
  replicated<T, space> forward(const X& x, const Y& y, Gemm&& gemm, Activation&& activation,
                               view<std::byte, space> workspace, where w = {}) const {
    return forward(x, y, gemm, activation, workspace, summand(), w);
  }
  /// The same with `residual` [rows, hidden], the same on every rank, added once.
  template <class X, class Y, class Gemm, class Activation>
  replicated<T, space> forward(const X& x, const Y& y, Gemm&& gemm, Activation&& activation,
                               view<std::byte, space> workspace, summand residual, where w = {}) const {
    return down_.forward(activated(x, gemm, activation, workspace, w), y, gemm, residual, w);
  }

  /// This rank's summand of y, without communication; down().finish sums it. See row_parallel_linear::partial.
  template <class X, class Y, class Gemm, class Activation>
  shardkit::partial<T, space> partial(const X& x, const Y& y, Gemm&& gemm, Activation&& activation,
                                      view<std::byte, space> workspace, where w = {}) const {
    return down_.partial(activated(x, gemm, activation, workspace, w), y, gemm, w);
  }

  /// The second layer, whose `finish` ends what `partial` began.
  const row_parallel_linear<Communicator, Weights, T>& down() const noexcept { return down_; }

 private:
  std::size_t columns() const noexcept { return gate_up_.cut().count(gate_up_.communicator().rank()); }

  template <class X, class Gemm, class Activation>
  sharded<T, space> activated(const X& x, Gemm& gemm, Activation& activation, view<std::byte, space> workspace,
                              const where& w) const {
    const std::size_t rows = detail::untagged(x).rows();
    const auto hidden =
        detail::workspace_of<T>(participant(gate_up_.communicator(), w.site), "gated_mlp", workspace, rows * columns());
    const auto both = gate_up_.forward(x, matrix_view<T, space>(hidden.data(), rows, columns()), gemm, w);
    const sharded<T, space> gate = both[0];
    if (!gate.data.empty()) activation(gate.data, both[1].data, w);
    return gate;
  }

  packed_column_linear<Communicator, Weights, T> gate_up_;
  row_parallel_linear<Communicator, Weights, T> down_;
};

}  // namespace shardkit
