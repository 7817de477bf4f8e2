// Words and numbers of checkpoint messages: names from a hostile file are cut short and made printable.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace shardkit {
namespace detail {

/// The text without control characters, cut to `limit` bytes at a character boundary.
inline std::string printable(std::string_view text, std::size_t limit = 160) {
  std::size_t end = text.size() < limit ? text.size() : limit;
  if (end < text.size())
    while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0u) == 0x80u) --end;  // within a UTF-8 sequence
  std::string result(text.substr(0, end));
  for (char& c : result)
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
  if (end < text.size()) result += "...";
  return result;
}

inline std::string in_quotes(std::string_view text) {
  std::string quoted = "'";  // appended to: GCC 12 warns of an overlap that is none where a literal begins a sum
  quoted += printable(text);
  return quoted += "'";
}

/// "[49152, 576]"; long shapes are cut.
template <class Shape>
std::string shape_text(const Shape& shape) {
  std::string text = "[";
  std::size_t shown = 0;
  for (const auto extent : shape) {
    if (shown != 0) text += ", ";
    if (++shown > 8) return text + "...]";
    text += std::to_string(extent);
  }
  return text + "]";
}

}  // namespace detail
}  // namespace shardkit
