// How a number of items is cut into contiguous ranges, one per rank. Splits, unequal collectives, layers and
// loaders all take this one value; nothing else computes an offset.
#pragma once

#include <shardkit/core/detail/bounds_table.hpp>
#include <shardkit/core/error.hpp>

#include <cstddef>
#include <initializer_list>
#include <limits>

namespace shardkit {

/// Where the remainder of a cut goes.
enum class layout {
  balanced,  ///< floor(n / parts) each, one more for the first ranks
  block      ///< ceil(n / parts) each until the items end; the last ranks may get fewer, or none
};

/// [offset(r), offset(r) + count(r)) for each rank r. Ranges ascend, may be empty, and cover [0, total()).
/// Closed forms are constexpr values from C++20 on:  constexpr auto cut = partition::balanced(10, 4);
///
/// Sizes are in items; `scaled(n)` turns a partition of heads into one of elements. Ranges of replicas coincide.
class partition {
 public:
  /// No items over one rank.
  SHARDKIT_CONSTEXPR20 partition() noexcept = default;

  /// Remainder to the first ranks. With a granularity, whole units of so many items are dealt; the last unit may
  /// be short. Throws usage_error where parts < 1 or granularity < 1.
  static SHARDKIT_CONSTEXPR20 partition balanced(std::size_t total, int parts, std::size_t granularity = 1) {
    return closed(layout::balanced, total, parts, granularity);
  }

  /// Blocks of ceil(units / parts) units: rank r starts at r * block.
  static SHARDKIT_CONSTEXPR20 partition block(std::size_t total, int parts, std::size_t granularity = 1) {
    return closed(layout::block, total, parts, granularity);
  }

  /// Given cut points: parts + 1 ascending bounds that begin with 0. Copies share one immutable table.
  static partition from_bounds(const std::size_t* bounds, std::size_t count) {
    partition result;
    result.table_ = detail::bounds_table::make(bounds, count);
    result.parts_ = static_cast<int>(count - 1);
    result.total_ = bounds[count - 1];
    return result;
  }
  /// The same, written out: from_bounds({0, 3, 3, 10}).
  static partition from_bounds(std::initializer_list<std::size_t> bounds) {
    return from_bounds(bounds.begin(), bounds.size());
  }
  /// Any contiguous range of std::size_t.
  template <class Bounds>
  static auto from_bounds(const Bounds& bounds) -> decltype(from_bounds(bounds.data(), bounds.size())) {
    return from_bounds(bounds.data(), bounds.size());
  }

  /// Given counts, one per rank.
  template <class Counts>
  static partition from_counts(const Counts& counts) {
    detail::bounds_builder bounds(static_cast<std::size_t>(counts.end() - counts.begin()));
    for (std::size_t count : counts) bounds.add(count);
    return from_bounds(bounds.data(), bounds.size());
  }
  /// The same, written out: from_counts({3, 0, 7}).
  static partition from_counts(std::initializer_list<std::size_t> counts) {
    return from_counts<std::initializer_list<std::size_t>>(counts);
  }

  /// Shares in proportion to `weights` (measured speeds, one per rank, not all 0), cut at whole units: each bound
  /// is the unit nearest to the ideal one.
  template <class Weights>
  static partition weighted(std::size_t total, const Weights& weights, std::size_t granularity = 1) {
    double total_weight = 0;
    for (double weight : weights) {
      if (!(weight >= 0)) throw usage_error("partition::weighted: weights must not be negative");
      total_weight += weight;
    }
    if (!(total_weight > 0 && total_weight <= std::numeric_limits<double>::max()))
      throw usage_error("partition::weighted: at least one weight must be positive, and none infinite");
    require(granularity >= 1, "granularity must be at least 1");
    const std::size_t parts = static_cast<std::size_t>(weights.end() - weights.begin());
    detail::bounds_builder bounds(parts);
    double reached = 0;
    std::size_t previous = 0, index = 0;
    for (double weight : weights) {
      reached += weight;
      const double ideal = static_cast<double>(total) * (reached / total_weight);
      // The last bound is the total whatever the rounding of large numbers, and no bound lies beyond it.
      std::size_t bound = total;
      if (++index < parts && ideal < static_cast<double>(total)) {
        const std::size_t below = static_cast<std::size_t>(ideal) / granularity * granularity;
        const std::size_t above = total - below < granularity ? total : below + granularity;
        bound = ideal - static_cast<double>(below) < static_cast<double>(above) - ideal ? below : above;
      }
      bounds.add(bound - previous);
      previous = bound;
    }
    return from_bounds(bounds.data(), bounds.size());
  }

  /// Each range is held by `n` consecutive ranks; n must divide the number of parts.
  SHARDKIT_CONSTEXPR20 partition replicas(int n) const {
    require(n >= 1 && parts_ % n == 0, "replicas must divide the number of ranks");
    require(table_ == nullptr && inner_ == 1 && replicas_ == 1, "replicas applies to a balanced or block layout");
    partition result = *this;
    result.replicas_ = n;
    return result;
  }

  /// Every range of a cut over parts / n ranks is cut again, balanced, over n consecutive ranks.
  SHARDKIT_CONSTEXPR20 partition subdivided(int n) const {
    require(n >= 1 && parts_ % n == 0, "the subdivision must divide the number of ranks");
    require(table_ == nullptr && inner_ == 1 && replicas_ == 1, "subdivided applies to a balanced or block layout");
    partition result = *this;
    result.inner_ = n;
    return result;
  }

  /// The same cut of items that consist of n smaller ones (heads to elements).
  SHARDKIT_CONSTEXPR20 partition scaled(std::size_t n) const noexcept {
    partition result = *this;
    result.scale_ *= n;
    return result;
  }

  /// What every rank needs of units of n items each: a unit whose items lie on several ranks is held by all of them.
  /// (5,4 heads in groups of 3: rank 0 holds groups 0 and 1, rank 1 holds groups 1 and 2.) Comes before scaled().
  SHARDKIT_CONSTEXPR20 partition covering_units(std::size_t n) const {
    require(n >= 1, "a unit must have at least 1 item");
    require(scale_ == 1, "covering_units comes before scaled");
    partition result = *this;
    result.unit_ *= n;
    return result;
  }

  /// Number of ranges, one for each rank.
  SHARDKIT_CONSTEXPR20 int parts() const noexcept { return parts_; }
  /// Items in all, each counted once.
  SHARDKIT_CONSTEXPR20 std::size_t total() const noexcept { return units_of(total_, unit_) * scale_; }
  /// First item of rank r.
  SHARDKIT_CONSTEXPR20 std::size_t offset(int rank) const noexcept { return range(rank).first * scale_; }
  /// Items of rank r.
  SHARDKIT_CONSTEXPR20 std::size_t count(int rank) const noexcept {
    const auto [first, last] = range(rank);
    return (last - first) * scale_;
  }

  /// The largest count: what every rank holds after padding. 0 where there are no items.
  SHARDKIT_CONSTEXPR20 std::size_t padded_count() const noexcept {
    std::size_t largest = 0;
    for (int rank = 0; rank < parts_; ++rank)
      if (count(rank) > largest) largest = count(rank);
    return largest;
  }

  /// The first rank that holds item i; i must be below total().
  SHARDKIT_CONSTEXPR20 int owner(std::size_t i) const noexcept {
    // The ends ascend, so the first rank whose end lies beyond i holds i.
    int low = 0, high = parts_ - 1;
    while (low < high) {
      const int middle = low + (high - low) / 2;
      if (range(middle).last * scale_ > i) high = middle;
      else low = middle + 1;
    }
    return low;
  }

  /// Whether every rank holds the same number of items, and none of them twice.
  SHARDKIT_CONSTEXPR20 bool uniform() const noexcept {
    return padded_count() * static_cast<std::size_t>(parts_) == total();
  }
  /// How many ranks hold an item; the largest number where that differs.
  SHARDKIT_CONSTEXPR20 int replica_count() const noexcept {
    if (unit_ == 1) return replicas_;
    int most = 1;
    for (int rank = 0, holding = 0; rank < parts_; ++rank, holding = 0) {
      for (int other = 0; other <= rank; ++other)
        holding += count(other) > 0 && offset(other) + count(other) > offset(rank);
      if (count(rank) > 0 && holding > most) most = holding;
    }
    return most;
  }

  /// Same ranges on every rank.
  friend SHARDKIT_CONSTEXPR20 bool operator==(const partition& a, const partition& b) noexcept {
    if (a.parts_ != b.parts_) return false;
    for (int rank = 0; rank < a.parts_; ++rank)
      if (a.offset(rank) != b.offset(rank) || a.count(rank) != b.count(rank)) return false;
    return true;
  }
  friend SHARDKIT_CONSTEXPR20 bool operator!=(const partition& a, const partition& b) noexcept { return !(a == b); }

 private:
  static SHARDKIT_CONSTEXPR20 void require(bool holds, const char* what) {
    if (!holds) refuse(what);
  }

  [[noreturn, gnu::cold, gnu::noinline]] static void refuse(const char* what) {
    throw usage_error(detail::sentence() << "partition: " << what);
  }

  static SHARDKIT_CONSTEXPR20 partition closed(layout how, std::size_t total, int parts, std::size_t granularity) {
    require(parts >= 1, "the number of ranks must be at least 1");
    require(granularity >= 1, "granularity must be at least 1");
    partition result;
    result.layout_ = how;
    result.total_ = total;
    result.parts_ = parts;
    result.granularity_ = granularity;
    return result;
  }

  static SHARDKIT_CONSTEXPR20 std::size_t units_of(std::size_t items, std::size_t unit) noexcept {
    return items / unit + (items % unit != 0);
  }

  // Range `index` of `units` units over `parts`.
  static SHARDKIT_CONSTEXPR20 detail::item_bounds cut(layout how, std::size_t units, std::size_t parts,
                                                      std::size_t index) noexcept {
    if (how == layout::block) {
      const std::size_t block = units / parts + (units % parts != 0);
      const std::size_t first = index * block < units ? index * block : units;
      return {first, units - first < block ? units : first + block};
    }
    const std::size_t quotient = units / parts, remainder = units % parts;
    const std::size_t first = index * quotient + (index < remainder ? index : remainder);
    return {first, first + quotient + (index < remainder)};
  }

  // Before scaling. An empty range of units begins where the one before it ends, so that ends always ascend.
  SHARDKIT_CONSTEXPR20 detail::item_bounds range(int rank) const noexcept {
    const auto [first, last] = item_range(rank);
    if (unit_ == 1) return {first, last};
    return {first == last ? units_of(first, unit_) : first / unit_, units_of(last, unit_)};
  }

  SHARDKIT_CONSTEXPR20 detail::item_bounds item_range(int rank) const noexcept {
    const std::size_t index = static_cast<std::size_t>(rank);
    if (table_ != nullptr) return {table_.bound(index), table_.bound(index + 1)};
    const std::size_t sharing = static_cast<std::size_t>(replicas_) * static_cast<std::size_t>(inner_);
    const std::size_t units = units_of(total_, granularity_);
    auto [first, last] = cut(layout_, units, static_cast<std::size_t>(parts_) / sharing, index / sharing);
    first *= granularity_;
    last *= granularity_;
    if (first > total_) first = total_;
    if (last > total_) last = total_;  // the last unit may be short
    if (inner_ == 1) return {first, last};
    const auto [from, to] =
        cut(layout::balanced, last - first, static_cast<std::size_t>(inner_), index % static_cast<std::size_t>(inner_));
    return {first + from, first + to};
  }

  layout layout_ = layout::balanced;
  int parts_ = 1;
  int replicas_ = 1;
  int inner_ = 1;
  std::size_t total_ = 0;
  std::size_t granularity_ = 1;
  std::size_t unit_ = 1;
  std::size_t scale_ = 1;
  detail::bounds_table table_;
};

/// The cuts of attention heads and of the key/value heads they read.
struct grouped_heads {
  partition heads;     ///< query heads
  partition kv_heads;  ///< key/value heads; ranges of several ranks may coincide or overlap
};

/// How query heads are dealt where they share key/value heads and the number of ranks does not suit.
enum class head_groups {
  whole,  ///< a key/value head and its query heads stay together: nothing is held twice, some ranks may get more
  split   ///< query heads are dealt evenly; a key/value head is held by every rank that has query heads of it
};

/// Cuts `heads` query heads so that every rank holds the key/value heads its query heads read. Where `parts` is a
/// multiple of kv_heads, each key/value head is replicated and its query heads are dealt out among the replicas
/// (9 heads, 3 KV heads over 6 ranks: 2,1,2,1,2,1); otherwise `how` decides: whole groups (over 2 ranks 6,3 heads with
/// 2,1 KV heads) or split ones (5,4 heads with 2,2 KV heads, the middle one on both).
/// Throws usage_error where kv_heads does not divide heads.
SHARDKIT_CONSTEXPR20 grouped_heads grouped(std::size_t heads, std::size_t kv_heads, int parts,
                                           head_groups how = head_groups::whole) {
  if (parts < 1 || kv_heads == 0 || heads % kv_heads != 0)
    throw usage_error(detail::sentence() << "grouped: " << heads << " heads do not form whole groups of " << kv_heads
                                         << " key/value heads over " << parts << " ranks");
  const std::size_t group = heads / kv_heads;
  const bool replicated = static_cast<std::size_t>(parts) % kv_heads == 0;
  if (how == head_groups::split && !replicated) {
    const partition dealt = partition::balanced(heads, parts);
    return {dealt, dealt.covering_units(group)};
  }
  const int sharing = replicated ? parts / static_cast<int>(kv_heads) : 1;
  return {partition::balanced(heads, parts, group).subdivided(sharing),
          partition::balanced(kv_heads, parts).replicas(sharing)};
}

}  // namespace shardkit
