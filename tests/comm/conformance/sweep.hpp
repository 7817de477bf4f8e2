// How thoroughly a case goes through its combinations of types, operations, sizes, roots and layouts.
#pragma once

#include <shardkit/core/partition.hpp>
#include "called_types.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <limits>
#include <numeric>
#include <vector>

namespace conformance {

struct sweep {
  /// Combinations that a case tries at most; where there are more, a sample that spreads over all parameters.
  std::size_t points = std::numeric_limits<std::size_t>::max();
  /// Whether even a small sample holds every operation on every element type.
  bool every_operation = false;
  /// Whether every reduction combines in rank order, and not only by_rank.
  bool always_ordered = false;
  /// Whether averages are only close, because every element is divided before they are summed; by_rank is exact.
  bool rounded_averages = false;
  /// Elements of a message that no transport sends in one piece.
  std::size_t large = 100003;

  sweep part(std::size_t divisor) const {
    sweep result = *this;
    result.points = std::max<std::size_t>(1, points / divisor);
    return result;
  }
  sweep with_operations(std::size_t operations) const {
    sweep result = *this;
    if (every_operation) result.points = std::max(points, operations + points / 3);
    return result;
  }
};

/// Around everything that changes with the size: none, one, fewer elements than ranks, the bytes that fit beside the
/// publication of a call (88: 11 doubles, 22 floats), whole cache lines, many lines.
inline constexpr std::array<std::size_t, 11> sizes{0, 1, 2, 7, 11, 12, 22, 23, 64, 1000, 5003};

/// Calls visit with every combination of indices below the bounds, or with a sample; the same on every rank. A sample
/// goes through all values of the first index before it comes to one of them again.
template <std::size_t N, class Visit>
void visit_grid(const sweep& how, const std::size_t (&bounds)[N], Visit visit) {
  std::size_t others = 1;
  for (std::size_t k = 1; k < N; ++k) others *= bounds[k];
  const std::size_t points = std::min(bounds[0] * others, how.points);
  const std::size_t rounds = (points + bounds[0] - 1) / bounds[0];
  // A step near the golden section, without common divisor, meets every value of every other index early.
  std::size_t step = static_cast<std::size_t>(static_cast<double>(others) * 0.6180339887498949);
  while (std::gcd(step, others) != 1) ++step;
  for (std::size_t i = 0; i < points; ++i) {
    std::array<std::size_t, N> point{i % bounds[0]};
    std::size_t rest = (point[0] * rounds + i / bounds[0]) % others * step % others;
    for (std::size_t k = 1; k < N; ++k) {
      point[k] = rest % bounds[k];
      rest /= bounds[k];
    }
    visit(point);
  }
}

/// The ways to cut `total` elements over the ranks.
inline constexpr std::size_t layout_count = 7;
inline shardkit::partition layout_of(std::size_t which, std::size_t total, int ranks) {
  using shardkit::partition;
  const std::size_t parts = static_cast<std::size_t>(ranks);
  std::vector<std::size_t> counts(parts);
  switch (which) {
    case 0: return partition::balanced(total, ranks);
    case 1: return partition::block(total, ranks);
    case 2: return partition::balanced(total, ranks, 3);
    case 3: counts.front() = total; break;  // one rank owns everything
    case 4: counts.back() = total; break;
    case 5:  // every other rank owns nothing
      for (std::size_t r = 0; r < parts; r += 2)
        counts[r] = total / ((parts + 1) / 2) + (r == 0 ? total % ((parts + 1) / 2) : 0);
      break;
    default: {  // the later, the more
      std::size_t left = total;
      for (std::size_t r = parts; r-- > 1; left -= counts[r]) counts[r] = left * 2 / 3;
      counts[0] = left;
    }
  }
  return partition::from_counts(counts);
}

/// Every legal (element type, operation).
struct typed_operation {
  std::size_t type;
  reduction_kind kind;
};
inline std::vector<typed_operation> reducible_operations() {
  std::vector<typed_operation> all;
  for (std::size_t type = 0; type < type_count; ++type)
    for (std::size_t kind = 0; kind < kind_count; ++kind)
      if (shardkit::is_reducible(dtype_at(type), static_cast<reduction_kind>(kind)))
        all.push_back({type, static_cast<reduction_kind>(kind)});
  return all;
}

}  // namespace conformance
