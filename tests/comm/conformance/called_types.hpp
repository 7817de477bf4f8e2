// The element types that a suite calls the verbs with: all of them where SHARDKIT_TEST_ALL_TYPES is defined, as in the
// suites of the backends that treat types differently. Elsewhere, and for sanitizers, a few show what there is to see,
// and compile and run in a part of the time.
#pragma once

#include "values.hpp"

#include <cstddef>
#include <cstdint>
#include <tuple>
#include <utility>

namespace conformance {

/// The floating ones first.
#ifdef SHARDKIT_TEST_ALL_TYPES
using called_types = element_types;
inline constexpr std::size_t float_type_count = 4;
#else
using called_types = std::tuple<float, bfloat16, std::int64_t, std::int8_t>;
inline constexpr std::size_t float_type_count = 2;
#endif
inline constexpr std::size_t type_count = std::tuple_size_v<called_types>;

/// Calls visit(T{}) with the index-th of the called types.
template <std::size_t I = 0, class Visit>
void with_type(std::size_t index, Visit&& visit) {
  if constexpr (I < type_count) {
    if (index == I) visit(std::tuple_element_t<I, called_types>{});
    else with_type<I + 1>(index, std::forward<Visit>(visit));
  }
}
inline dtype dtype_at(std::size_t index) {
  dtype result{};
  with_type(index, [&](auto element) { result = shardkit::dtype_of<decltype(element)>; });
  return result;
}

}  // namespace conformance
