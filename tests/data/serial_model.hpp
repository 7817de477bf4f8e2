// Splits as they would be explained on paper: who gets which indices, for tests to compare with.
#pragma once

#include <shardkit/core/partition.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

namespace serial_model {

using indices = std::vector<std::size_t>;

/// The indices of each rank. Balanced: cards are dealt one at a time, and each rank takes as many consecutive ones as
/// it got cards. Block: index i belongs to rank i / ceil(n / size).
inline std::vector<indices> shares(std::size_t n, int size, shardkit::layout how) {
  const std::size_t ranks = static_cast<std::size_t>(size);
  std::vector<indices> result(ranks);
  if (how == shardkit::layout::block) {
    const std::size_t block = (n + ranks - 1) / ranks;
    for (std::size_t i = 0; i < n; ++i) result[i / block].push_back(i);
    return result;
  }
  std::vector<std::size_t> cards(ranks, 0);
  for (std::size_t i = 0; i < n; ++i) ++cards[i % ranks];
  std::size_t next = 0;
  for (std::size_t rank = 0; rank < ranks; ++rank)
    for (std::size_t card = 0; card < cards[rank]; ++card) result[rank].push_back(next++);
  return result;
}

/// The same, every share extended by the last index of all to the length of the longest.
inline std::vector<indices> padded_shares(std::size_t n, int size, shardkit::layout how) {
  std::vector<indices> result = shares(n, size, how);
  std::size_t longest = 0;
  for (const indices& share : result)
    if (share.size() > longest) longest = share.size();
  for (indices& share : result)
    while (share.size() < longest) share.push_back(n - 1);
  return result;
}

/// Floats whose bits survive only a bitwise copy: -0, quiet and signalling NaNs with payloads, denormals.
inline float awkward_float(std::size_t i) {
  const std::uint32_t kinds[] = {0x80000000u, 0x7fc00000u, 0xffc01234u, 0x7f800001u, 0x00000001u, 0x3f800000u};
  const std::uint32_t bits = kinds[i % 6] + (i % 6 == 0 ? 0 : static_cast<std::uint32_t>(i) << 4);
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

template <class A, class B>
bool same_bits(const A& a, const B& b) {
  using element = typename A::value_type;
  return a.size() == b.size() && (a.size() == 0 || std::memcmp(a.data(), b.data(), a.size() * sizeof(element)) == 0);
}

}  // namespace serial_model
