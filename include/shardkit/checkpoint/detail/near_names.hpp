// Which known names a mistyped one may have meant.
#pragma once

#include <shardkit/checkpoint/detail/text.hpp>

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace shardkit {
namespace detail {

/// Insertions, deletions and replacements that turn a into b (Wagner and Fischer 1974, one row at a time).
inline std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t replaced = diagonal + (a[i - 1] != b[j - 1]);
      diagonal = row[j];
      row[j] = std::min({row[j] + 1, row[j - 1] + 1, replaced});
    }
  }
  return row[b.size()];
}

/// "; similar: 'x', 'y', 'z'" from the `size` names that name(i) gives, or nothing.
template <class Name>
std::string near_names(std::string_view wanted, std::size_t size, Name name) {
  constexpr std::size_t most_compared = 50'000, longest = 256, shown = 3;
  if (wanted.size() > longest) return {};
  std::vector<std::pair<std::size_t, std::size_t>> best;  // distance, index
  for (std::size_t i = 0; i < std::min(size, most_compared); ++i) {
    const std::string_view candidate = name(i);
    if (candidate.size() > longest) continue;
    const std::pair<std::size_t, std::size_t> entry(edit_distance(wanted, candidate), i);
    best.insert(std::upper_bound(best.begin(), best.end(), entry), entry);
    if (best.size() > shown) best.pop_back();
  }
  std::string text;
  for (const auto& [distance, i] : best) text += (text.empty() ? "; similar: " : ", ") + in_quotes(name(i));
  return text;
}

}  // namespace detail
}  // namespace shardkit
