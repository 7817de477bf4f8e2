// 64 bits that say what a rank is about to do. Ranks that meet compare them, so that different calls at the same
// point of the program end in an error instead of a hang or a wrong result.
#pragma once

#include <shardkit/comm/calls.hpp>
#include <shardkit/core/detail/sentence.hpp>
#include <shardkit/core/partition.hpp>

#include <cstddef>
#include <cstdint>
#include <string>

namespace shardkit {
namespace detail {

// Layout, low to high: verb 6, dtype 4, reduction 4 (its by_rank bit highest), root 14, count or layout hash 36.
// Counts beyond 2^36 - 1 alias; ranks that differ by a multiple of that are not told apart.
template <class Call, class... Calls>
constexpr std::uint64_t verb_index(call_list<Calls...>) noexcept {
  std::uint64_t index = 0;
  bool found = false;
  ((found = found || std::is_same<Call, Calls>::value, index += found ? 0u : 1u), ...);
  return index;
}

constexpr std::uint64_t low_36(std::uint64_t value) noexcept { return value & ((std::uint64_t{1} << 36) - 1); }

// Ranks must agree on every range, as each computes the others' places by itself.
inline std::uint64_t hash_of(const partition& layout) noexcept {
  std::uint64_t hash = 0xcbf29ce484222325u;
  for (int rank = 0; rank < layout.parts(); ++rank) hash = (hash ^ layout.count(rank)) * 0x100000001b3u;
  return low_36(hash ^ (hash >> 28));
}

template <class Call>
auto amount_bits(const Call& call, int) noexcept -> decltype(std::uint64_t{call.count}) {
  return low_36(call.count);
}
template <class Call>
auto amount_bits(const Call& call, int) noexcept -> decltype(hash_of(*call.layout)) {
  return hash_of(*call.layout);
}
template <class Call>
std::uint64_t amount_bits(const Call&, long) noexcept {
  return 0;
}
template <class Call>
auto type_bits(const Call& call, int) noexcept -> decltype(std::uint64_t(call.type)) {
  return static_cast<std::uint64_t>(call.type);
}
template <class Call>
std::uint64_t type_bits(const Call&, long) noexcept {
  return 0;
}
template <class Call>
auto operation_bits(const Call& call, int) noexcept -> decltype(std::uint64_t(call.op.kind)) {
  return static_cast<std::uint64_t>(call.op.kind) | (call.op.by_rank ? 8u : 0u);
}
template <class Call>
std::uint64_t operation_bits(const Call&, long) noexcept {
  return 0;
}
template <class Call>
auto root_bits(const Call& call, int) noexcept -> decltype(std::uint64_t(call.root)) {
  return static_cast<std::uint64_t>(call.root) & 0x3fffu;
}
template <class Call>
std::uint64_t root_bits(const Call&, long) noexcept {
  return 0;
}

template <class... Calls>
const char* verb_name(std::uint64_t index, call_list<Calls...>) noexcept {
  static constexpr const char* names[] = {Calls::name...};
  return index < sizeof...(Calls) ? names[index] : "split";  // the one meeting that is no verb
}

}  // namespace detail

/// What all ranks must agree on: verb, dtype, reduction, root and counts.
template <class Call>
std::uint64_t fingerprint(const Call& call) noexcept {
  return detail::verb_index<Call>(all_calls{}) | detail::type_bits(call, 0) << 6 |
         detail::operation_bits(call, 0) << 10 | detail::root_bits(call, 0) << 14 | detail::amount_bits(call, 0) << 28;
}

/// How every message begins that tells of ranks that make different calls.
inline constexpr const char* mismatch_words = "ranks make different calls: ";

/// The two calls in words, each with its call site; the lower rank comes first, whoever has found it.
[[gnu::cold, gnu::noinline]] inline std::string mismatch_text(int rank, const std::string& call, int other,
                                                              const std::string& other_call) {
  if (other < rank) return mismatch_text(other, other_call, rank, call);
  return detail::sentence() << mismatch_words << "rank " << rank << " " << call << ", rank " << other << " "
                            << other_call;
}

/// A fingerprint in words. Unequal layouts appear as their hash.
[[gnu::cold, gnu::noinline]] inline std::string describe_fingerprint(std::uint64_t bits) {
  const std::uint64_t type = (bits >> 6) & 15u;
  const auto kind = static_cast<reduction_kind>((bits >> 10) & 7u);
  return detail::sentence() << detail::verb_name(bits & 63u, all_calls{}) << "(count or layout " << (bits >> 28) << ", "
                            << (type < 15 ? name_of(static_cast<dtype>(type)) : "no type") << ", "
                            << ((bits >> 13) & 1u ? "by_rank " : "") << name_of(kind) << ", root "
                            << ((bits >> 14) & 0x3fffu) << ")";
}

}  // namespace shardkit
