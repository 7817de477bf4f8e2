// Which layers go to which stage: the contiguous cut whose slowest stage is as fast as possible, since the slowest
// stage sets the pace of a pipeline.
#pragma once

#include <shardkit/core/error.hpp>
#include <shardkit/core/partition.hpp>

#include <cmath>
#include <cstddef>
#include <limits>
#include <numeric>
#include <string>
#include <type_traits>
#include <vector>

namespace shardkit {

/// In the unit of the layers' costs (bytes, operations, measured milliseconds).
struct balance_options {
  double first_extra = 0;              ///< what the first stage does beside its layers: the embedding
  double last_extra = 0;               ///< what the last stage does: final norm, head, sampling
  std::vector<std::size_t> cuts = {};  ///< first layers of stages 1, 2, ...: wins over the costs; stages may be empty
};

namespace detail {

/// Exact dynamic programme over (stages left, first layer): least cost of the slowest stage, then, among the cuts that
/// reach it, the least sum of squares, so that the other stages are even as well. Ties give earlier stages more.
class layer_balance {
 public:
  /// Costs are counted in whole units of 2^-26 of their total: sums and squares are then exact, equal costs tie.
  layer_balance(const std::vector<double>& costs, int stages, const balance_options& options, double total)
      : layers_(costs.size()), stages_(static_cast<std::size_t>(stages)), reached_(layers_ + 1) {
    int exponent = 0;
    std::frexp(total, &exponent);
    const auto units = [exponent](double cost) { return std::round(std::ldexp(cost, 26 - exponent)); };
    for (std::size_t i = 0; i < layers_; ++i) reached_[i + 1] = reached_[i] + units(costs[i]);
    first_extra_ = units(options.first_extra);
    last_extra_ = units(options.last_extra);
  }

  partition cut() {
    const auto slowest = [](double stage, double rest) { return stage > rest ? stage : rest; };
    const double limit = solve(std::numeric_limits<double>::infinity(), slowest);
    solve(limit, [](double stage, double rest) { return stage * stage + rest; });
    std::vector<std::size_t> bounds(stages_ + 1);
    for (std::size_t stage = 0; stage < stages_; ++stage)
      bounds[stage + 1] = next_[(stages_ - stage) * (layers_ + 1) + bounds[stage]];
    return partition::from_bounds(bounds);
  }

 private:
  // Sets next_[left, first]: where the stage that begins with layer `first` ends, when `left` stages share the rest.
  template <class Combine>
  double solve(double limit, Combine combine) {
    constexpr double impossible = std::numeric_limits<double>::infinity();
    const std::size_t width = layers_ + 1;
    const std::size_t least = layers_ < stages_ ? 0 : 1;  // layers of a stage
    next_.assign((stages_ + 1) * width, 0);
    std::vector<double> rest(width, impossible), best(width);
    rest[layers_] = 0;
    for (std::size_t left = 1; left <= stages_; ++left) {
      for (std::size_t first = 0; first <= layers_; ++first) {
        best[first] = impossible;
        for (std::size_t end = first + least; end <= layers_; ++end) {
          const double stage = cost(stages_ - left, first, end);
          if (stage > limit) break;  // costs are not negative: a longer stage is no cheaper
          const double total = combine(stage, rest[end]);
          if (total > best[first] || total == impossible) continue;
          best[first] = total;
          next_[left * width + first] = end;
        }
      }
      rest.swap(best);
    }
    return rest[0];
  }

  double cost(std::size_t stage, std::size_t first, std::size_t end) const {
    double sum = reached_[end] - reached_[first];
    if (stage == 0) sum += first_extra_;
    if (stage + 1 == stages_) sum += last_extra_;
    return sum;
  }

  std::size_t layers_, stages_;
  double first_extra_, last_extra_;
  std::vector<double> reached_;  // cost of the layers before layer i
  std::vector<std::size_t> next_;
};

[[noreturn]] inline void refuse_balance(const std::string& message) { throw usage_error("balance: " + message); }

inline partition explicit_cuts(std::size_t layers, int stages, const std::vector<std::size_t>& cuts) {
  if (cuts.size() + 1 != static_cast<std::size_t>(stages))
    refuse_balance(std::to_string(cuts.size()) + " cuts make " + std::to_string(cuts.size() + 1) + " stages of " +
                   std::to_string(stages) + "; give " + std::to_string(stages - 1) +
                   " cuts, the first layer of every stage but stage 0, or none");
  std::vector<std::size_t> bounds{0};
  for (std::size_t cut : cuts) {
    if (cut < bounds.back() || cut > layers)
      refuse_balance("cut " + std::to_string(cut) + " does not lie between " + std::to_string(bounds.back()) + " and " +
                     std::to_string(layers) + ", the number of layers; cuts ascend");
    bounds.push_back(cut);
  }
  bounds.push_back(layers);
  return partition::from_bounds(bounds);
}

inline void require_cost(double cost, const std::string& what) {
  if (!(cost >= 0) || std::isinf(cost))
    refuse_balance("the cost of " + what + " is " + std::to_string(cost) +
                   "; give a finite number that is not negative");
}

}  // namespace detail

/// Cuts layers with these costs (any range of numbers, one per layer) over `stages`: as even as can be by cost, no
/// stage empty unless there are fewer layers than stages. The same input gives the same cut on every rank.
///
///     partition layers = balance(milliseconds, pipeline.size(), {.first_extra = 0.5, .last_extra = 8});
///     for (std::size_t i = layers.offset(rank); i < layers.offset(rank) + layers.count(rank); ++i) ...
///
/// Throws usage_error for a cost that is negative or not finite, and for cuts that do not fit.
template <class Costs, std::enable_if_t<!std::is_integral<Costs>::value, int> = 0>
partition balance(const Costs& costs, int stages, const balance_options& options = {}) {
  std::vector<double> given;
  for (const auto& cost : costs) {
    given.push_back(static_cast<double>(cost));
    detail::require_cost(given.back(), "layer " + std::to_string(given.size() - 1));
  }
  detail::require_cost(options.first_extra, "first_extra");
  detail::require_cost(options.last_extra, "last_extra");
  const double total = std::accumulate(given.begin(), given.end(), options.first_extra + options.last_extra);
  detail::require_cost(total, "all layers together");
  if (stages < 1) detail::refuse_balance(std::to_string(stages) + " stages; at least 1 is needed");
  if (!options.cuts.empty()) return detail::explicit_cuts(given.size(), stages, options.cuts);
  return detail::layer_balance(given, stages, options, total).cut();
}

/// Layers of equal cost 1, the unit of the extras then.
inline partition balance(std::size_t layers, int stages, const balance_options& options = {}) {
  return balance(std::vector<double>(layers, 1.0), stages, options);
}

}  // namespace shardkit
