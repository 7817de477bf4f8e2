#include "values.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <sstream>
#include <type_traits>

namespace conformance {
namespace {

template <class T>
inline constexpr bool is_float = shardkit::is_floating(shardkit::dtype_of<T>);

/// Calls visit(T{}) with the type of that dtype.
template <std::size_t I = 0, class Visit>
void with_dtype(dtype type, Visit&& visit) {
  if constexpr (I < std::tuple_size_v<element_types>) {
    using T = std::tuple_element_t<I, element_types>;
    if (type == shardkit::dtype_of<T>) visit(T{});
    else with_dtype<I + 1>(type, std::forward<Visit>(visit));
  }
}

template <class T>
T of_double(double value) {
  if constexpr (std::is_same_v<T, float16> || std::is_same_v<T, bfloat16>) return T(static_cast<float>(value));
  else return static_cast<T>(value);
}

template <class T>
T any_bits(std::uint64_t word) {
  if constexpr (std::is_same_v<T, bool>) {
    return (word & 1) != 0;
  } else {
    T value;
    std::memcpy(static_cast<void*>(&value), &word, sizeof value);
    return value;
  }
}

template <class T>
T exact_value(reduction_kind kind, std::uint64_t word) {
  if constexpr (!is_float<T>) {
    return any_bits<T>(word);  // sums and products wrap around
  } else {
    if (kind == reduction_kind::product) return of_double<T>((word & 1 ? 2.0 : 1.0) * (word & 2 ? -1.0 : 1.0));
    return of_double<T>(static_cast<double>(word % 7) + 1.0);  // never zero, whose sign is tested elsewhere
  }
}

template <class T>
T wild_value(std::uint64_t word) {
  if constexpr (!is_float<T>) {
    return any_bits<T>(word);
  } else {
    const double mantissa = 1.0 + static_cast<double>(word >> 12) * 0x1p-52;
    const int range = std::is_same_v<T, float16> ? 3 : 12;
    const int exponent = static_cast<int>(word % static_cast<std::uint64_t>(2 * range + 1)) - range;
    return of_double<T>(std::ldexp(word & 0x800 ? -mantissa : mantissa, exponent));
  }
}

template <class T>
T special_value(std::uint64_t word, std::size_t index) {
  if constexpr (!is_float<T>) {
    return any_bits<T>(word);
  } else {
    constexpr double infinity = std::numeric_limits<double>::infinity(), nan = std::numeric_limits<double>::quiet_NaN();
    constexpr double plain[] = {0.0, -0.0, 0.0, -0.0, 1.0, -1.0, infinity, -infinity};
    // Most places have no NaN on any rank, and most of these only zeros: what the rules are about.
    if (index % 4 == 0 && word % 5 == 0) return of_double<T>(word & 64 ? nan : -nan);
    return of_double<T>(plain[(word >> 8) % (index % 4 == 1 ? 8 : 2)]);
  }
}

template <class T>
T value(const source& from, int rank, std::size_t index) {
  const std::uint64_t word = draw(from.seed, rank, index);
  switch (from.which) {
    case values::bits: return any_bits<T>(word);
    case values::exact: return exact_value<T>(from.kind, word);
    case values::wild: return wild_value<T>(word);
    default: return special_value<T>(word, index);
  }
}

template <class T>
using column = std::array<T, 16>;  // of one element, by rank

template <class T>
T exact_reduction(reduction_kind kind, const T* begin, const T* end) {
  if (kind == reduction_kind::minimum) return *std::min_element(begin, end);
  if (kind == reduction_kind::maximum) return *std::max_element(begin, end);
  using wide = std::conditional_t<is_float<T>, double, std::uint64_t>;
  wide result = static_cast<wide>(*begin);
  for (const T* next = begin + 1; next != end; ++next) {
    const wide other = static_cast<wide>(*next);
    if constexpr (!is_float<T>) {
      if (kind == reduction_kind::bit_and) result &= other;
      if (kind == reduction_kind::bit_or) result |= other;
      if (kind == reduction_kind::bit_xor) result ^= other;
    }
    if (kind == reduction_kind::product) result *= other;
    if (kind == reduction_kind::sum || kind == reduction_kind::average) result += other;
  }
  if constexpr (is_float<T>) {
    if (kind == reduction_kind::average) result /= static_cast<double>(end - begin);
    return of_double<T>(result);
  } else {
    return static_cast<T>(result);
  }
}

template <class T>
T ordered_reduction(reduction_kind kind, const T* begin, const T* end) {
  if constexpr (!is_float<T>) {
    return exact_reduction(kind, begin, end);
  } else {
    if (kind == reduction_kind::minimum || kind == reduction_kind::maximum) {
      const auto is_nan = [](T x) { return std::isnan(static_cast<double>(x)); };
      if (const T* nan = std::find_if(begin, end, is_nan); nan != end) return *nan;
      const auto below = [](T a, T b) {
        const double x = static_cast<double>(a), y = static_cast<double>(b);
        return x < y || (x == y && std::signbit(x) && !std::signbit(y));
      };
      return kind == reduction_kind::minimum ? *std::min_element(begin, end, below)
                                             : *std::max_element(begin, end, below);
    }
    using work = std::conditional_t<std::is_same_v<T, double>, double, float>;
    work result = static_cast<work>(*begin);
    for (const T* next = begin + 1; next != end; ++next)
      result = kind == reduction_kind::product ? result * static_cast<work>(*next) : result + static_cast<work>(*next);
    if (kind == reduction_kind::average) result = result / static_cast<work>(end - begin);
    return static_cast<T>(result);
  }
}

}  // namespace

std::uint64_t draw(std::uint64_t seed, int rank, std::size_t index) {
  // The finaliser of splitmix64.
  std::uint64_t x = seed * 0x9e3779b97f4a7c15u + static_cast<std::uint64_t>(rank + 1) * 0xd1b54a32d192ed03u +
                    static_cast<std::uint64_t>(index) * 0x8cb92ba72f3d8dd7u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

void fill(void* to, dtype type, const source& from, int rank, std::size_t first, std::size_t count) {
  with_dtype(type, [&](auto element) {
    using T = decltype(element);
    for (std::size_t i = 0; i < count; ++i) static_cast<T*>(to)[i] = value<T>(from, rank, first + i);
  });
}

void reduce(void* to, dtype type, const source& from, reduction_kind kind, int ranks, std::size_t first,
            std::size_t count) {
  with_dtype(type, [&](auto element) {
    using T = decltype(element);
    for (std::size_t i = 0; i < count; ++i) {
      column<T> all;
      for (int rank = 0; rank < ranks; ++rank) all[static_cast<std::size_t>(rank)] = value<T>(from, rank, first + i);
      static_cast<T*>(to)[i] = from.which == values::exact ? exact_reduction(kind, all.data(), all.data() + ranks)
                                                           : ordered_reduction(kind, all.data(), all.data() + ranks);
    }
  });
}

double worst_error(const void* got, dtype type, const source& from, reduction_kind kind, int ranks, std::size_t first,
                   std::size_t count) {
  double worst = 0;
  with_dtype(type, [&](auto element) {
    using T = decltype(element);
    if constexpr (is_float<T>) {
      const double rounding = std::is_same_v<T, double>    ? 0x1p-52
                              : std::is_same_v<T, float>   ? 0x1p-23
                              : std::is_same_v<T, float16> ? 0x1p-10
                                                           : 0x1p-7;
      for (std::size_t i = 0; i < count; ++i) {
        column<T> all;
        double scale = kind == reduction_kind::product ? 1 : 0;
        for (int rank = 0; rank < ranks; ++rank) {
          const T x = all[static_cast<std::size_t>(rank)] = value<T>(from, rank, first + i);
          const double size = std::fabs(static_cast<double>(x));
          scale = kind == reduction_kind::product ? scale * size : scale + size;
        }
        const double is = static_cast<double>(static_cast<const T*>(got)[i]);
        const double should = static_cast<double>(ordered_reduction(kind, all.data(), all.data() + ranks));
        const double error = std::fabs(is - should) / (scale * rounding * ranks);
        if (is != should) worst = std::isnan(error) ? std::numeric_limits<double>::infinity() : std::max(worst, error);
      }
    }
  });
  return worst;
}

std::size_t first_difference(const void* got, const void* wanted, dtype type, std::size_t count, bool any_nan) {
  const std::size_t size = size_of(type);
  const auto is_nan = [&](const void* values, std::size_t i) {
    bool result = false;
    with_dtype(type, [&](auto element) {
      using T = decltype(element);
      if constexpr (is_float<T>) result = std::isnan(static_cast<double>(static_cast<const T*>(values)[i]));
    });
    return result;
  };
  if (count == 0 || std::memcmp(got, wanted, count * size) == 0) return count;
  for (std::size_t i = 0; i < count; ++i)
    if (std::memcmp(static_cast<const char*>(got) + i * size, static_cast<const char*>(wanted) + i * size, size) != 0)
      if (!any_nan || !is_nan(wanted, i) || !is_nan(got, i)) return i;
  return count;
}

std::string shown(const void* values, dtype type, std::size_t index) {
  std::ostringstream out;
  with_dtype(type, [&](auto element) {
    using T = decltype(element);
    unsigned char bytes[sizeof(T)];
    std::memcpy(bytes, static_cast<const char*>(values) + index * sizeof(T), sizeof bytes);
    if constexpr (is_float<T>) out << static_cast<double>(static_cast<const T*>(values)[index]) << " ";
    out << "0x" << std::hex;
    for (std::size_t i = sizeof bytes; i-- > 0;) out << (bytes[i] >> 4) << (bytes[i] & 15);
  });
  return out.str();
}

}  // namespace conformance
