// Where in the user's code a call was made. Our own struct instead of std::source_location, so that C++17
// engines can include the headers that carry it. Taken by default arguments, which GCC, Clang and nvcc
// evaluate at the outermost call, also through nested defaults.
#pragma once

namespace shardkit {

/// File, function and line of a call. The strings are literals: they live as long as the program.
struct call_site {
  const char* file = "";      ///< as the compiler was given it
  const char* function = "";  ///< without its class
  int line = 0;               ///< 0: not known

  /// The place where this default argument is filled in.
  static constexpr call_site current(const char* file = __builtin_FILE(), const char* function = __builtin_FUNCTION(),
                                     int line = __builtin_LINE()) noexcept {
    return {file, function, line};
  }

  /// A copy, word by word. Who copies a place that has just been written, as that of a call always has, may otherwise
  /// wait for it to leave the store buffer: the words were stored one by one, and compilers load two at once.
  call_site by_words() const noexcept {
    return {const_cast<const char* const volatile&>(file), const_cast<const char* const volatile&>(function),
            const_cast<const volatile int&>(line)};
  }

  /// Whether a place is known at all.
  constexpr bool known() const noexcept { return line != 0; }
};

}  // namespace shardkit
