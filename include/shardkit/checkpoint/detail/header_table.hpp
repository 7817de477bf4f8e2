// The tensors of one safetensors header, packed: a hostile header of 100 MB may list two million of them, and the
// table stays smaller than its text.
#pragma once

#include <shardkit/checkpoint/stored_dtype.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

namespace shardkit {
namespace detail {

class header_table {
 public:
  static constexpr std::size_t npos = static_cast<std::size_t>(-1);

  struct entry {
    std::uint64_t begin = 0, end = 0;  // of its bytes, counted from the first data byte
    std::uint32_t text = 0;            // where its name begins in text_; its shape follows the name
    std::uint32_t name_bytes = 0;
    std::uint32_t rank = 0;
    stored_dtype type;
  };

  /// The shortest entry, {"":{"dtype":"U8","shape":[],"data_offsets":[0,0]}}, takes 50 characters.
  void reserve(std::uint64_t header_bytes) {
    entries_.reserve(static_cast<std::size_t>(header_bytes / 50 + 1));
    text_.reserve(static_cast<std::size_t>(header_bytes));
  }

  void begin_tensor(std::string_view name) {
    entry next;
    next.text = static_cast<std::uint32_t>(text_.size());
    next.name_bytes = static_cast<std::uint32_t>(name.size());
    text_.insert(text_.end(), name.begin(), name.end());
    entries_.push_back(next);
  }
  /// Seven bits per byte, least significant first, the top bit on all but the last: no longer than its digits.
  void add_extent(std::uint64_t extent) {
    for (; extent >= 0x80; extent >>= 7) text_.push_back(static_cast<char>(0x80 | (extent & 0x7f)));
    text_.push_back(static_cast<char>(extent));
    ++last().rank;
  }
  entry& last() noexcept { return entries_.back(); }

  /// Puts the entries in the order of their data and makes them findable. Returns an entry whose name another
  /// has too, or npos.
  std::size_t finish() {
    std::sort(entries_.begin(), entries_.end(),
              [](const entry& a, const entry& b) { return a.begin != b.begin ? a.begin < b.begin : a.end < b.end; });
    by_name_.resize(entries_.size());
    for (std::size_t i = 0; i < by_name_.size(); ++i) by_name_[i] = static_cast<std::uint32_t>(i);
    std::sort(by_name_.begin(), by_name_.end(),
              [&, this](std::uint32_t a, std::uint32_t b) { return name(a) < name(b); });
    const auto twin = std::adjacent_find(by_name_.begin(), by_name_.end(),
                                         [&, this](std::uint32_t a, std::uint32_t b) { return name(a) == name(b); });
    return twin == by_name_.end() ? npos : *twin;
  }

  std::size_t size() const noexcept { return entries_.size(); }
  const entry& operator[](std::size_t i) const noexcept { return entries_[i]; }
  std::string_view name(std::size_t i) const noexcept {
    return {text_.data() + entries_[i].text, entries_[i].name_bytes};
  }
  std::vector<std::size_t> shape(std::size_t i) const {
    std::vector<std::size_t> extents(entries_[i].rank);
    const char* at = text_.data() + entries_[i].text + entries_[i].name_bytes;
    for (std::size_t& extent : extents) {
      unsigned shift = 0;
      while ((*at & 0x80) != 0) {
        extent |= static_cast<std::size_t>(*at++ & 0x7f) << shift;
        shift += 7;
      }
      extent |= static_cast<std::size_t>(*at++) << shift;
    }
    return extents;
  }
  /// The i-th tensor in the order of names.
  std::size_t by_name(std::size_t i) const noexcept { return by_name_[i]; }
  /// npos where there is none of this name.
  std::size_t find(std::string_view wanted) const noexcept {
    const auto found = std::lower_bound(by_name_.begin(), by_name_.end(), wanted,
                                        [&, this](std::uint32_t i, std::string_view text) { return name(i) < text; });
    return found == by_name_.end() || name(*found) != wanted ? npos : *found;
  }

 private:
  std::vector<entry> entries_;
  std::vector<char> text_;
  std::vector<std::uint32_t> by_name_;
};

}  // namespace detail
}  // namespace shardkit
