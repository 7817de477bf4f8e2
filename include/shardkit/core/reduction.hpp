// What a reduction does with the ranks' elements.
#pragma once

#include <shardkit/core/dtype.hpp>
#include <shardkit/core/error.hpp>

#include <cstddef>
#include <cstdint>
#include <string>

namespace shardkit {

/// What is done with two elements.
enum class reduction_kind : std::uint8_t { sum, product, minimum, maximum, average, bit_and, bit_or, bit_xor };

/// A reduction and whether its order is fixed.
struct reduction {
  reduction_kind kind = reduction_kind::sum;  ///< which one
  /// Combine in rank order on every backend: bitwise the same everywhere. Thread ranks always do.
  bool by_rank = false;
};

/// All types but bool and the 8-bit floats.
inline constexpr reduction sum{reduction_kind::sum};
/// As for sum.
inline constexpr reduction product{reduction_kind::product};
/// NaN if any rank has one; -0 is below +0.
inline constexpr reduction minimum{reduction_kind::minimum};
/// NaN if any rank has one; +0 is above -0.
inline constexpr reduction maximum{reduction_kind::maximum};
/// The sum divided by the number of ranks; floating types only.
inline constexpr reduction average{reduction_kind::average};
/// Bit operations are for integers and bool.
inline constexpr reduction bit_and{reduction_kind::bit_and};
/// For integers and bool.
inline constexpr reduction bit_or{reduction_kind::bit_or};
/// For integers and bool.
inline constexpr reduction bit_xor{reduction_kind::bit_xor};

/// The same reduction in rank order: reproducible to the bit on every backend and run.
constexpr reduction by_rank(reduction op) noexcept { return {op.kind, true}; }

namespace detail {

inline constexpr const char* reduction_names[] = {"sum",     "product", "minimum", "maximum",
                                                  "average", "bit_and", "bit_or",  "bit_xor"};

}  // namespace detail

/// As the constants above are called.
constexpr const char* name_of(reduction_kind kind) noexcept {
  return detail::reduction_names[static_cast<std::size_t>(kind)];
}

/// Whether elements of this type can be reduced so: averages need floats, bit operations integers or bool, sums
/// and products no bool, and 8-bit floats are not reduced on the host.
constexpr bool is_reducible(dtype type, reduction_kind kind) noexcept {
  if (type == dtype::f8e4m3 || type == dtype::f8e5m2) return false;
  const bool bits = kind >= reduction_kind::bit_and;
  if (is_floating(type)) return !bits;
  if (type == dtype::boolean) return bits || kind == reduction_kind::minimum || kind == reduction_kind::maximum;
  return kind != reduction_kind::average;
}

namespace detail {

/// What is said where `is_reducible` says no.
[[gnu::cold, gnu::noinline]] inline std::string irreducible(dtype type, reduction_kind kind) {
  return sentence() << name_of(kind) << " of " << name_of(type)
                    << " is not defined; averages need a floating type, bit operations an integer or bool";
}

}  // namespace detail

/// Throws unsupported_error where `is_reducible` says no.
inline void require_reducible(dtype type, reduction_kind kind) {
  if (!is_reducible(type, kind)) throw unsupported_error(detail::irreducible(type, kind));
}

}  // namespace shardkit
