// The closed forms of partition. Every property is a constexpr function that is true or not: a small grid is checked
// by the compiler, the large one at run time.
#include <shardkit/core/partition.hpp>

#include <doctest/doctest.h>

#include <cstddef>

using shardkit::grouped;
using shardkit::layout;
using shardkit::partition;

namespace {

// [0, total()) is covered by ascending ranges without gaps; padded_count, uniform and owner fit to them.
constexpr bool is_sound(const partition& cut, std::size_t total) {
  if (cut.total() != total || cut.offset(0) != 0) return false;
  std::size_t reached = 0, largest = 0;
  bool equal = true;
  for (int rank = 0; rank < cut.parts(); ++rank) {
    if (cut.offset(rank) != reached) return false;
    for (std::size_t i = reached; i < reached + cut.count(rank); ++i)
      if (cut.owner(i) != rank) return false;
    reached += cut.count(rank);
    if (cut.count(rank) > largest) largest = cut.count(rank);
    if (cut.count(rank) != cut.count(0)) equal = false;
  }
  return reached == total && cut.padded_count() == largest && cut.uniform() == equal && cut.replica_count() == 1;
}

// Cards dealt one at a time in rank order: how many rank `rank` gets.
constexpr std::size_t dealt(std::size_t cards, int parts, int rank) {
  std::size_t got = 0;
  for (std::size_t card = 0; card < cards; ++card)
    if (static_cast<int>(card % static_cast<std::size_t>(parts)) == rank) ++got;
  return got;
}

constexpr bool balanced_is_dealt(std::size_t total, int parts) {
  const partition cut = partition::balanced(total, parts);
  for (int rank = 0; rank < parts; ++rank)
    if (cut.count(rank) != dealt(total, parts, rank)) return false;
  return is_sound(cut, total);
}

constexpr bool block_is_division(std::size_t total, int parts) {
  const partition cut = partition::block(total, parts);
  const std::size_t ranks = static_cast<std::size_t>(parts), block = (total + ranks - 1) / ranks;
  for (std::size_t i = 0; i < total; ++i)
    if (cut.owner(i) != static_cast<int>(i / block)) return false;
  return is_sound(cut, total);
}

// Items follow their unit, and the last unit may be short.
constexpr bool units_stay_whole(layout how, std::size_t total, int parts, std::size_t unit) {
  const partition cut =
      how == layout::block ? partition::block(total, parts, unit) : partition::balanced(total, parts, unit);
  const std::size_t units = (total + unit - 1) / unit;
  const partition of_units = how == layout::block ? partition::block(units, parts) : partition::balanced(units, parts);
  for (std::size_t i = 0; i < total; ++i)
    if (cut.owner(i) != of_units.owner(i / unit)) return false;
  return is_sound(cut, total);
}

constexpr bool replicas_coincide(std::size_t total, int parts, int copies) {
  const partition base = partition::balanced(total, parts);
  const partition cut = partition::balanced(total, parts * copies).replicas(copies);
  for (int rank = 0; rank < parts * copies; ++rank)
    if (cut.offset(rank) != base.offset(rank / copies) || cut.count(rank) != base.count(rank / copies)) return false;
  for (std::size_t i = 0; i < total; ++i)
    if (cut.owner(i) != base.owner(i) * copies) return false;  // the first of the replicas
  return cut.total() == total && cut.replica_count() == copies && cut.parts() == parts * copies &&
         (copies == 1 || total == 0 || !cut.uniform()) && cut.padded_count() == base.padded_count();
}

constexpr bool subdivision_deals_ranges(std::size_t total, int parts, int inner) {
  const partition base = partition::block(total, parts);
  const partition cut = partition::block(total, parts * inner).subdivided(inner);
  for (int rank = 0; rank < parts * inner; ++rank)
    if (cut.count(rank) != dealt(base.count(rank / inner), inner, rank % inner)) return false;
  return is_sound(cut, total);
}

constexpr bool scaling_multiplies(std::size_t total, int parts, std::size_t factor) {
  const partition cut = partition::balanced(total, parts), scaled = cut.scaled(factor);
  for (int rank = 0; rank < parts; ++rank)
    if (scaled.offset(rank) != cut.offset(rank) * factor || scaled.count(rank) != cut.count(rank) * factor)
      return false;
  return is_sound(scaled, total * factor) && scaled.scaled(2) == cut.scaled(2 * factor);
}

// Each rank's units are those of its items and no others; the owner of a unit is the first rank that has any of it.
constexpr bool units_cover_items(std::size_t total, int parts, std::size_t unit) {
  const partition items = partition::balanced(total, parts), units = items.covering_units(unit);
  if (units.total() != (total + unit - 1) / unit || units.parts() != parts) return false;
  int most = 1;
  for (std::size_t u = 0; u < units.total(); ++u) {
    int holders = 0, first_holder = -1;
    for (int rank = 0; rank < parts; ++rank) {
      bool needed = false;
      for (std::size_t i = u * unit; i < total && i < (u + 1) * unit; ++i)
        needed = needed || (i >= items.offset(rank) && i < items.offset(rank) + items.count(rank));
      if (needed != (u >= units.offset(rank) && u < units.offset(rank) + units.count(rank))) return false;
      if (needed && holders++ == 0) first_holder = rank;
    }
    if (units.owner(u) != first_holder) return false;
    if (holders > most) most = holders;
  }
  return units.replica_count() == most && units.scaled(3).offset(parts - 1) == 3 * units.offset(parts - 1);
}

// Every rank holds the key/value heads that its query heads read.
constexpr bool groups_hold_together(std::size_t heads, std::size_t kv_heads, int parts, shardkit::head_groups how) {
  const auto cut = grouped(heads, kv_heads, parts, how);
  if (!is_sound(cut.heads, heads) || cut.kv_heads.total() != kv_heads) return false;
  for (std::size_t head = 0; head < heads; ++head) {
    const int rank = cut.heads.owner(head);
    const std::size_t kv = head / (heads / kv_heads);
    if (kv < cut.kv_heads.offset(rank) || kv >= cut.kv_heads.offset(rank) + cut.kv_heads.count(rank)) return false;
  }
  return true;
}

// Everything for totals up to `most` over `parts` ranks.
constexpr bool all_hold(int parts, std::size_t most) {
  for (std::size_t total = 0; total <= most; ++total) {
    if (!balanced_is_dealt(total, parts) || !block_is_division(total, parts)) return false;
    for (std::size_t unit = 1; unit <= 5; ++unit)
      if (!units_stay_whole(layout::balanced, total, parts, unit) ||
          !units_stay_whole(layout::block, total, parts, unit))
        return false;
    for (int copies = 1; copies <= 3; ++copies)
      if (!replicas_coincide(total, parts, copies) || !subdivision_deals_ranges(total, parts, copies)) return false;
    for (std::size_t unit = 1; unit <= 4; ++unit)
      if (!units_cover_items(total, parts, unit)) return false;
    for (std::size_t factor = 0; factor <= 3; ++factor)
      if (!scaling_multiplies(total, parts, factor)) return false;
  }
  for (std::size_t kv_heads = 1; kv_heads <= 4; ++kv_heads)
    for (std::size_t group = 1; group <= 3; ++group)
      for (const auto how : {shardkit::head_groups::whole, shardkit::head_groups::split})
        if (!groups_hold_together(kv_heads * group, kv_heads, parts, how)) return false;
  return true;
}

// By the compiler: the closed forms are usable in constant expressions.
static_assert(all_hold(1, 5));
static_assert(all_hold(2, 5));
static_assert(all_hold(3, 7));
static_assert(all_hold(4, 6));
static_assert(all_hold(5, 6));

constexpr bool has_counts(const partition& cut, std::initializer_list<std::size_t> counts) {
  if (counts.size() != static_cast<std::size_t>(cut.parts())) return false;
  int rank = 0;
  for (std::size_t count : counts)
    if (cut.count(rank++) != count) return false;
  return true;
}

}  // namespace

TEST_CASE("Closed forms keep their rules for every total up to 64 and every number of ranks up to 9") {
  for (int parts = 1; parts <= 9; ++parts) {
    CAPTURE(parts);
    CHECK(all_hold(parts, 64));
  }
}

TEST_CASE("Balanced and block put the remainder where the field expects it") {
  static_assert(has_counts(partition::balanced(5, 4), {2, 1, 1, 1}));
  static_assert(has_counts(partition::block(5, 4), {2, 2, 1, 0}));
  static_assert(has_counts(partition::block(9, 8), {2, 2, 2, 2, 1, 0, 0, 0}));
  static_assert(has_counts(partition::balanced(0, 3), {0, 0, 0}));
  static_assert(has_counts(partition::balanced(70, 3, 32), {32, 32, 6}));
  static_assert(has_counts(partition::balanced(100, 2, 32), {64, 36}));
  CHECK(has_counts(partition::balanced(2, 4), {1, 1, 0, 0}));
}

TEST_CASE("9 heads and 3 key/value heads are cut over every number of ranks without splitting what belongs together") {
  constexpr auto heads = [](int parts) { return grouped(9, 3, parts).heads; };
  constexpr auto kv_heads = [](int parts) { return grouped(9, 3, parts).kv_heads; };
  static_assert(has_counts(heads(1), {9}) && has_counts(kv_heads(1), {3}));
  static_assert(has_counts(heads(2), {6, 3}) && has_counts(kv_heads(2), {2, 1}));
  static_assert(has_counts(heads(3), {3, 3, 3}) && has_counts(kv_heads(3), {1, 1, 1}));
  static_assert(has_counts(heads(4), {3, 3, 3, 0}) && has_counts(kv_heads(4), {1, 1, 1, 0}));
  static_assert(has_counts(heads(6), {2, 1, 2, 1, 2, 1}) && has_counts(kv_heads(6), {1, 1, 1, 1, 1, 1}));
  static_assert(kv_heads(6).replica_count() == 2 && kv_heads(6).offset(3) == 1);
  static_assert(has_counts(heads(9), {1, 1, 1, 1, 1, 1, 1, 1, 1}));
  CHECK(has_counts(heads(6).scaled(64), {128, 64, 128, 64, 128, 64}));
}

TEST_CASE("Split groups deal query heads evenly and leave no rank without any while there are enough") {
  using shardkit::head_groups;
  constexpr auto heads = [](int parts) { return grouped(9, 3, parts, head_groups::split).heads; };
  constexpr auto kv_heads = [](int parts) { return grouped(9, 3, parts, head_groups::split).kv_heads; };
  static_assert(has_counts(heads(2), {5, 4}) && has_counts(kv_heads(2), {2, 2}));
  static_assert(kv_heads(2).offset(1) == 1 && kv_heads(2).owner(1) == 0 && kv_heads(2).replica_count() == 2);
  static_assert(has_counts(heads(4), {3, 2, 2, 2}) && has_counts(kv_heads(4), {1, 1, 2, 1}));
  static_assert(heads(6) == grouped(9, 3, 6).heads && kv_heads(3).replica_count() == 1);
  static_assert(has_counts(kv_heads(2).scaled(64), {128, 128}));
  CHECK_THROWS_AS(partition::balanced(4, 2).scaled(2).covering_units(2), shardkit::usage_error);
  CHECK_THROWS_AS(partition::balanced(4, 2).covering_units(0), shardkit::usage_error);
  CHECK(has_counts(partition::from_bounds({0, 4, 4, 9}).covering_units(3), {2, 0, 2}));
}

TEST_CASE("Large totals are cut without overflow") {
  constexpr std::size_t huge = std::size_t{1} << 62;
  constexpr partition cut = partition::balanced(huge + 1, 3);
  static_assert(cut.offset(2) + cut.count(2) == huge + 1);
  static_assert(cut.owner(huge) == 2 && cut.owner(0) == 0);
  CHECK(partition::block(huge, 7).count(0) == huge / 7 + 1);
}

TEST_CASE("Partitions with the same ranges are equal, however they were made") {
  static_assert(partition::balanced(8, 4) == partition::block(8, 4));
  static_assert(partition::balanced(9, 4) != partition::block(9, 4));
  static_assert(partition::balanced(8, 4) != partition::balanced(8, 2));
  static_assert(partition::balanced(4, 2).scaled(3) == partition::balanced(12, 2, 3));
  CHECK(partition::balanced(9, 4) == partition::from_counts({3, 2, 2, 2}));
  CHECK(partition() == partition::balanced(0, 1));
}

TEST_CASE("Cuts that make no sense are refused") {
  CHECK_THROWS_AS(partition::balanced(4, 0), shardkit::usage_error);
  CHECK_THROWS_AS(partition::block(4, -1), shardkit::usage_error);
  CHECK_THROWS_AS(partition::balanced(4, 2, 0), shardkit::usage_error);
  CHECK_THROWS_AS(partition::balanced(4, 4).replicas(3), shardkit::usage_error);
  CHECK_THROWS_AS(partition::balanced(4, 4).replicas(0), shardkit::usage_error);
  CHECK_THROWS_AS(partition::balanced(4, 4).replicas(2).replicas(2), shardkit::usage_error);
  CHECK_THROWS_AS(partition::balanced(4, 4).subdivided(3), shardkit::usage_error);
  CHECK_THROWS_AS(partition::from_counts({2, 2}).replicas(2), shardkit::usage_error);
  CHECK_THROWS_AS(grouped(9, 2, 3), shardkit::usage_error);
  CHECK_THROWS_AS(grouped(9, 0, 3), shardkit::usage_error);
  CHECK_THROWS_AS(grouped(9, 3, 0), shardkit::usage_error);
}
