// What the conformance suite sends and what it expects, for element types known at run time, so that little has to be
// compiled for each communicator: elements that are a function of (seed, rank, index), which lets every rank compute
// by itself what the others sent, and serial reductions of them.
#pragma once

#include <shardkit/core/reduction.hpp>

#include <cstddef>
#include <cstdint>
#include <string>
#include <tuple>
#include <vector>

namespace conformance {

using shardkit::bfloat16;
using shardkit::dtype;
using shardkit::float16;
using shardkit::reduction_kind;

/// Every element type that reduces, the floating ones first.
using element_types = std::tuple<double, float, float16, bfloat16, std::int64_t, std::int32_t, std::int16_t,
                                 std::int8_t, std::uint64_t, std::uint32_t, std::uint16_t, std::uint8_t, bool>;
inline constexpr std::size_t kind_count = 8;

/// 64 random bits for each (seed, rank, index).
std::uint64_t draw(std::uint64_t seed, int rank, std::size_t index);

enum class values {
  bits,    ///< any bits at all: moved elements must arrive as they are
  exact,   ///< reductions over up to 9 ranks have one answer in every order: small whole floats, integers of all sizes
  wild,    ///< floats of many magnitudes and both signs: sums and products depend on the order
  special  ///< floats among NaN, infinities, both zeros and a few others; any integers
};

/// Who has what: the values of one rank.
struct source {
  values which;
  reduction_kind kind;  ///< for exact values: what will be done with them
  std::uint64_t seed;
};

/// Writes elements [first, first + count) of `rank`.
void fill(void* to, dtype type, const source& from, int rank, std::size_t first, std::size_t count);
inline void fill(void* to, dtype type, std::uint64_t seed, int rank, std::size_t first, std::size_t count) {
  fill(to, type, source{values::bits, reduction_kind::sum, seed}, rank, first, count);
}

/// Writes the reduction of elements [first, first + count) of all ranks. Exact values: in double, or in integers
/// modulo 2^64. Others: one rank after the other, 16-bit types in float and rounded once at the end; minimum and
/// maximum are NaN where any rank has one, and -0 is below +0.
void reduce(void* to, dtype type, const source& from, reduction_kind kind, int ranks, std::size_t first,
            std::size_t count);

/// How far a reduction in another order may be off, as a multiple of what one rounding of each partial result may
/// cost: the largest of all elements.
double worst_error(const void* got, dtype type, const source& from, reduction_kind kind, int ranks, std::size_t first,
                   std::size_t count);

/// The first element whose bits differ, or count. With `any_nan`, all NaN are the same.
std::size_t first_difference(const void* got, const void* wanted, dtype type, std::size_t count, bool any_nan = false);

/// One element for a message.
std::string shown(const void* values, dtype type, std::size_t index);

}  // namespace conformance
