// Puts the texts of errors together. Every step is a call: std::string's operators are inlined at each use, and took
// compilers more time than the verbs around them.
#pragma once

#include <cstdio>
#include <string>
#include <type_traits>
#include <utility>

namespace shardkit::detail {

/// sentence() << "rank " << 3 converts to std::string.
class sentence {
 public:
  sentence() noexcept {}
  sentence(const sentence&) = delete;
  sentence& operator=(const sentence&) = delete;
  [[gnu::cold, gnu::noinline]] ~sentence() {}

  [[gnu::cold, gnu::noinline]] sentence& operator<<(const char* text) {
    text_.append(text);
    return *this;
  }
  [[gnu::cold, gnu::noinline]] sentence& operator<<(const std::string& text) {
    text_.append(text);
    return *this;
  }
  template <class Number, std::enable_if_t<std::is_arithmetic<Number>::value, int> = 0>
  sentence& operator<<(Number number) {
    if constexpr (std::is_floating_point<Number>::value) return add(static_cast<double>(number));
    else if constexpr (std::is_signed<Number>::value) return add(static_cast<long long>(number));
    else return add(static_cast<unsigned long long>(number));
  }

  [[gnu::cold, gnu::noinline]] operator std::string() { return std::move(text_); }

 private:
  [[gnu::cold, gnu::noinline]] sentence& add(double number) { return print("%g", number); }
  [[gnu::cold, gnu::noinline]] sentence& add(long long number) { return print("%lld", number); }
  [[gnu::cold, gnu::noinline]] sentence& add(unsigned long long number) { return print("%llu", number); }
  template <class Number>
  sentence& print(const char* format, Number number) {
    char digits[32];
    std::snprintf(digits, sizeof digits, format, number);
    return *this << digits;
  }

  std::string text_;
};

}  // namespace shardkit::detail
