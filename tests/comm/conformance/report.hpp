// What a rank found wrong. Cases note it and go on, so that all ranks keep making the same calls; the program that ran
// the ranks asserts afterwards that nothing was noted.
#pragma once

#include <shardkit/core/view.hpp>
#include "values.hpp"

#include <cstddef>
#include <cstring>
#include <memory>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

namespace conformance {

using shardkit::view;

/// Everything streamed into one string.
template <class... Parts>
std::string text(const Parts&... parts) {
  std::ostringstream out;
  (out << ... << parts);
  return out.str();
}

class report {
 public:
  /// What the following checks are about.
  void at(std::string what) { what_ = std::move(what); }

  void expect(bool holds, const char* detail = "") {
    ++checks_;
    if (!holds) note(detail);
  }
  /// The bits of `count` elements are those wanted.
  void same(const void* got, const void* wanted, dtype type, std::size_t count, bool any_nan = false) {
    ++checks_;
    const std::size_t i = first_difference(got, wanted, type, count, any_nan);
    if (i != count)
      note(text("element ", i, " of ", count, " is ", shown(got, type, i), " and should be ", shown(wanted, type, i)));
  }
  /// Holds elements [first, first + count) of `rank`.
  void holds(const void* got, dtype type, const source& from, int rank, std::size_t first, std::size_t count) {
    wanted_.resize(count * size_of(type));
    fill(wanted_.data(), type, from, rank, first, count);
    same(got, wanted_.data(), type, count);
  }
  void holds(const void* got, dtype type, std::uint64_t seed, int rank, std::size_t first, std::size_t count) {
    holds(got, type, source{values::bits, reduction_kind::sum, seed}, rank, first, count);
  }

  long checks() const { return checks_; }
  long failures() const { return failures_; }
  const std::string& what() const { return text_; }

 private:
  void note(const std::string& detail) {
    constexpr long shown_failures = 5;
    if (++failures_ <= shown_failures)
      text_ += "\n  " + what_ + ": " + (detail.empty() ? "not as it should be" : detail);
  }

  long checks_ = 0, failures_ = 0;
  std::string what_, text_;
  std::vector<char> wanted_;
};

/// Elements of a type known at run time between two margins that nobody may write. They begin at no cache line.
class guarded {
 public:
  guarded(dtype type, std::size_t size)
      : type_(type), size_(size), bytes_(new (std::align_val_t{64}) char[(size + 2 * margin) * size_of(type)]) {
    std::memset(bytes_.get(), pattern, (size + 2 * margin) * size_of(type));
  }
  /// Filled with what `rank` has.
  guarded(dtype type, std::size_t size, const source& from, int rank) : guarded(type, size) {
    fill(data(), type, from, rank, 0, size);
  }
  guarded(dtype type, std::size_t size, std::uint64_t seed, int rank)
      : guarded(type, size, source{values::bits, reduction_kind::sum, seed}, rank) {}

  guarded(const guarded& other) : guarded(other.type_, other.size_) { *this = other; }
  guarded& operator=(const guarded& other) {
    std::memcpy(bytes_.get(), other.bytes_.get(), (size_ + 2 * margin) * size_of(type_));  // of one type and size
    return *this;
  }

  std::size_t size() const { return size_; }
  dtype type() const { return type_; }
  char* data(std::size_t index = 0) { return bytes_.get() + (margin + index) * size_of(type_); }

  template <class T>
  view<T> as() {
    return {reinterpret_cast<T*>(data()), size_};
  }
  template <class T>
  view<const T> read() {
    return as<T>();
  }

  /// Whether the margins are as they were.
  bool intact() const { return clean(0, margin) && clean(margin + size_, margin); }

 private:
  static constexpr std::size_t margin = 17;
  static constexpr char pattern = 0x25;

  bool clean(std::size_t first, std::size_t count) const {
    for (std::size_t i = first * size_of(type_); i < (first + count) * size_of(type_); ++i)
      if (bytes_[i] != pattern) return false;
    return true;
  }

  struct release {
    void operator()(char* bytes) const { ::operator delete[](bytes, std::align_val_t{64}); }
  };
  dtype type_;
  std::size_t size_;
  std::unique_ptr<char[], release> bytes_;
};

}  // namespace conformance
