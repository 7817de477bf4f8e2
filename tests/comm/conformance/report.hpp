// What a rank found wrong. Cases note it and go on, so that all ranks keep making the same calls; the program that ran
// the ranks asserts afterwards that nothing was noted.
#pragma once

#include <shardkit/core/buffer.hpp>
#include <shardkit/core/float16.hpp>

#include <cstddef>
#include <cstring>
#include <sstream>
#include <string>
#include <type_traits>

namespace conformance {

/// Everything streamed into one string.
template <class... Parts>
std::string text(const Parts&... parts) {
  std::ostringstream out;
  (out << ... << parts);
  return out.str();
}

template <class T>
std::string shown(const T& value) {
  if constexpr (std::is_same_v<T, shardkit::float16> || std::is_same_v<T, shardkit::bfloat16>)
    return text(static_cast<float>(value), " (bits ", value.bits, ")");
  else if constexpr (std::is_floating_point_v<T>) return text(std::hexfloat, value);
  else if constexpr (std::is_integral_v<T>) return text(+value);
  else return "other";
}

class report {
 public:
  /// `describe` is called only where the check fails.
  template <class Describe>
  void expect(bool holds, Describe describe) {
    ++checks_;
    if (holds) return;
    ++failures_;
    if (failures_ <= shown_failures) text_ += "\n  " + std::string(describe());
  }

  /// got[i] has the bits of wanted(i) for every i.
  template <class T, class Wanted, class Describe>
  void same(shardkit::view<T> got, Wanted wanted, Describe describe) {
    for (std::size_t i = 0; i < got.size(); ++i) {
      const std::remove_const_t<T> want = wanted(i);
      if (std::memcmp(&got[i], &want, sizeof want) == 0) continue;
      return expect(false, [&] {
        return describe() + text(": element ", i, " of ", got.size(), " is ", shown(got[i]), " and should be ", shown(want));
      });
    }
    expect(true, describe);
  }

  long checks() const { return checks_; }
  long failures() const { return failures_; }
  const std::string& what() const { return text_; }

 private:
  static constexpr long shown_failures = 5;
  long checks_ = 0, failures_ = 0;
  std::string text_;
};

/// A buffer between two margins that nobody may write. It begins at no particular alignment.
template <class T>
class guarded {
 public:
  explicit guarded(std::size_t size) : all_(size + 2 * margin), size_(size) {
    if (all_.size() != 0) std::memset(static_cast<void*>(all_.data()), pattern, all_.size() * sizeof(T));
  }
  /// Filled with value(i).
  template <class Value>
  guarded(std::size_t size, Value value) : guarded(size) {
    for (std::size_t i = 0; i < size; ++i) all_[margin + i] = value(i);
  }

  shardkit::view<T> get() { return {all_.data() + margin, size_}; }
  shardkit::view<const T> read() { return get(); }

  /// Whether the margins are as they were; for a buffer that should not be written at all, its inside, too.
  bool intact() const { return clean(0, margin) && clean(margin + size_, margin); }
  bool untouched() const { return clean(0, all_.size()); }

 private:
  static constexpr std::size_t margin = 17;
  static constexpr int pattern = 0xa5;

  bool clean(std::size_t first, std::size_t count) const {
    const auto* bytes = reinterpret_cast<const unsigned char*>(all_.data()) + first * sizeof(T);
    for (std::size_t i = 0; i < count * sizeof(T); ++i)
      if (bytes[i] != pattern) return false;
    return true;
  }

  shardkit::buffer<T> all_;
  std::size_t size_;
};

}  // namespace conformance
