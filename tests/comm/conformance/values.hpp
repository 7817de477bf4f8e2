// What the conformance suite sends and what it expects: elements that are a function of (seed, rank, index), so that
// every rank can compute by itself what the others sent, and serial reductions.
#pragma once

#include <shardkit/core/reduction.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <tuple>
#include <type_traits>
#include <utility>

namespace conformance {

using shardkit::bfloat16;
using shardkit::float16;
using shardkit::reduction_kind;

/// Every element type that reduces.
using element_types = std::tuple<double, float, float16, bfloat16, std::int64_t, std::int32_t, std::int16_t, std::int8_t,
                                 std::uint64_t, std::uint32_t, std::uint16_t, std::uint8_t, bool>;
inline constexpr std::size_t type_count = std::tuple_size_v<element_types>;
inline constexpr std::size_t float_type_count = 4;
inline constexpr std::size_t kind_count = 8;

template <class T>
inline constexpr bool is_float = shardkit::is_floating(shardkit::dtype_of<T>);

/// Calls visit(T{}) with the index-th element type.
template <std::size_t I = 0, class Visit>
void with_type(std::size_t index, Visit&& visit) {
  if constexpr (I < type_count) {
    if (index == I) visit(std::tuple_element_t<I, element_types>{});
    else with_type<I + 1>(index, std::forward<Visit>(visit));
  }
}
template <std::size_t I = 0, class Visit>
void with_float_type(std::size_t index, Visit&& visit) {
  if constexpr (I < float_type_count) {
    if (index == I) visit(std::tuple_element_t<I, element_types>{});
    else with_float_type<I + 1>(index, std::forward<Visit>(visit));
  }
}

/// 64 random bits for each (seed, rank, index): the finaliser of splitmix64.
inline std::uint64_t draw(std::uint64_t seed, int rank, std::size_t index) {
  std::uint64_t x = seed * 0x9e3779b97f4a7c15u + static_cast<std::uint64_t>(rank + 1) * 0xd1b54a32d192ed03u +
                    static_cast<std::uint64_t>(index) * 0x8cb92ba72f3d8dd7u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

template <class T>
T of_double(double value) {
  if constexpr (std::is_same_v<T, float16> || std::is_same_v<T, bfloat16>) return T(static_cast<float>(value));
  else return static_cast<T>(value);
}

/// Any bits at all: moved elements must arrive as they are.
template <class T>
T any_bits(std::uint64_t seed, int rank, std::size_t index) {
  const std::uint64_t word = draw(seed, rank, index);
  if constexpr (std::is_same_v<T, bool>) {
    return (word & 1) != 0;
  } else {
    T value;
    std::memcpy(static_cast<void*>(&value), &word, sizeof value);
    return value;
  }
}

/// Values whose reduction over up to 9 ranks has one exact answer in every order: small whole floats, and integers of
/// all sizes, whose sums and products wrap around.
template <class T>
T exact_value(reduction_kind kind, std::uint64_t seed, int rank, std::size_t index) {
  if constexpr (!is_float<T>) {
    return any_bits<T>(seed, rank, index);
  } else {
    const std::uint64_t word = draw(seed, rank, index);
    if (kind == reduction_kind::product) return of_double<T>((word & 1 ? 2.0 : 1.0) * (word & 2 ? -1.0 : 1.0));
    // Never zero: the sign of a zero is tested elsewhere.
    return of_double<T>(static_cast<double>(word % 7) + 1.0);
  }
}

/// Floats of many magnitudes and both signs, whose sums and products depend on the order.
template <class T>
T wild_value(std::uint64_t seed, int rank, std::size_t index) {
  const std::uint64_t word = draw(seed, rank, index);
  const double mantissa = 1.0 + static_cast<double>(word >> 12) * 0x1p-52;
  const int range = std::is_same_v<T, float16> ? 3 : 12;
  const int exponent = static_cast<int>(word % static_cast<std::uint64_t>(2 * range + 1)) - range;
  return of_double<T>(std::ldexp(word & 0x800 ? -mantissa : mantissa, exponent));
}

/// NaN, infinities, both zeros and a few ordinary values.
template <class T>
T special_value(std::uint64_t seed, int rank, std::size_t index) {
  constexpr double infinity = std::numeric_limits<double>::infinity(), nan = std::numeric_limits<double>::quiet_NaN();
  constexpr double plain[] = {0.0, -0.0, 0.0, -0.0, 1.0, -1.0, infinity, -infinity};
  const std::uint64_t word = draw(seed, rank, index);
  // Most places have no NaN on any rank, and most of these only zeros: what the rules are about.
  if (index % 4 == 0 && word % 5 == 0) return of_double<T>(word & 64 ? nan : -nan);
  return of_double<T>(plain[(word >> 8) % (index % 4 == 1 ? 8 : 2)]);
}

/// The values that the ranks have for one element.
template <class T>
class column {
 public:
  template <class Value>
  column(int ranks, Value value) : size_(ranks) {
    for (int rank = 0; rank < ranks; ++rank) values_[rank] = value(rank);
  }
  const T* begin() const { return values_; }
  const T* end() const { return values_ + size_; }
  int size() const { return size_; }

 private:
  T values_[16];
  int size_;
};

/// The reduction of exact values, in double or in integers modulo 2^64.
template <class T>
T exact_reduction(reduction_kind kind, const column<T>& of_ranks) {
  using wide = std::conditional_t<is_float<T>, double, std::uint64_t>;
  const T* const lowest = std::min_element(of_ranks.begin(), of_ranks.end());
  const T* const highest = std::max_element(of_ranks.begin(), of_ranks.end());
  if (kind == reduction_kind::minimum) return *lowest;
  if (kind == reduction_kind::maximum) return *highest;
  wide result = static_cast<wide>(*of_ranks.begin());
  for (const T* next = of_ranks.begin() + 1; next != of_ranks.end(); ++next) {
    const wide other = static_cast<wide>(*next);
    if constexpr (!is_float<T>) {
      if (kind == reduction_kind::bit_and) result &= other;
      if (kind == reduction_kind::bit_or) result |= other;
      if (kind == reduction_kind::bit_xor) result ^= other;
    }
    if (kind == reduction_kind::product) result *= other;
    if (kind == reduction_kind::sum || kind == reduction_kind::average) result += other;
  }
  if constexpr (is_float<T>) {
    if (kind == reduction_kind::average) result /= of_ranks.size();
    return of_double<T>(result);
  } else {
    return static_cast<T>(result);
  }
}

/// Whether a NaN is the answer to minimum or maximum of floats.
template <class T>
bool any_nan(const column<T>& of_ranks) {
  return std::any_of(of_ranks.begin(), of_ranks.end(), [](T value) { return std::isnan(static_cast<double>(value)); });
}

/// Minimum or maximum of floats without NaN, -0 below +0.
template <class T>
T extreme(reduction_kind kind, const column<T>& of_ranks) {
  const auto below = [](T a, T b) {
    const double x = static_cast<double>(a), y = static_cast<double>(b);
    return x < y || (x == y && std::signbit(x) && !std::signbit(y));
  };
  return kind == reduction_kind::minimum ? *std::min_element(of_ranks.begin(), of_ranks.end(), below)
                                         : *std::max_element(of_ranks.begin(), of_ranks.end(), below);
}

/// The reduction of floats one rank after the other, 16-bit types in float and rounded once at the end.
template <class T>
T ordered_reduction(reduction_kind kind, const column<T>& of_ranks) {
  if (kind == reduction_kind::minimum || kind == reduction_kind::maximum) return extreme(kind, of_ranks);
  using work = std::conditional_t<std::is_same_v<T, double>, double, float>;
  work result = static_cast<work>(*of_ranks.begin());
  for (const T* next = of_ranks.begin() + 1; next != of_ranks.end(); ++next)
    result = kind == reduction_kind::product ? result * static_cast<work>(*next) : result + static_cast<work>(*next);
  if (kind == reduction_kind::average) result = result / static_cast<work>(of_ranks.size());
  return static_cast<T>(result);
}

}  // namespace conformance
