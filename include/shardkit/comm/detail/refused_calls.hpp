// What newcomers write first and the compiler would answer by "no matching function": reductions without an operation
// of ours, or without an output. The answer is one line with the remedy. No call that is right gets here.
#pragma once

#include <shardkit/comm/in_place.hpp>
#include <shardkit/core/reduction.hpp>

#include <type_traits>

// Deleted functions have a text from C++26 on, and before in Clang; elsewhere a parameter's type says it.
#if defined(__clang__) && __clang_major__ >= 19
#define SHARDKIT_DELETE(reason)    \
  _Pragma("clang diagnostic push") \
      _Pragma("clang diagnostic ignored \"-Wc++26-extensions\"") delete (reason)_Pragma("clang diagnostic pop")
#else
#define SHARDKIT_DELETE(reason) delete
#endif

namespace shardkit::detail {

struct not_copied_but_moved_or_passed_by_reference_or_split {};

template <class... Arguments>
inline constexpr bool lacks_operation = (!std::is_convertible<const Arguments&, reduction>::value && ...);

/// An operation where the output belongs.
template <class... Arguments>
inline constexpr bool lacks_output = false;
template <class In, class... Rest>
inline constexpr bool lacks_output<In, reduction, Rest...> = !is_in_place<In>::value && !has_dtype<In>::value;

template <class... Arguments>
using if_refused = std::enable_if_t<lacks_operation<Arguments...> || lacks_output<Arguments...>>;

/// Its own class, so that this is the first error.
template <class... Arguments>
struct refuse_reduction {
  static_assert(!lacks_operation<Arguments...>,
                "shardkit: a reduction takes one of shardkit's operations: sum, product, minimum, maximum, average, "
                "bit_and, bit_or, bit_xor, or by_rank(sum)");
};
template <class In, class... Rest>
struct refuse_reduction<In, reduction, Rest...> {
  static_assert(!require_view<const In>::value,
                "shardkit: the output is missing; say in_place(x), or pass the buffer for it behind x");
};

class refused_calls {
 public:
  template <class... Arguments, class = if_refused<Arguments...>>
  auto reduce(const Arguments&...) {
    refuse_reduction<Arguments...>();
  }
  template <class... Arguments, class = if_refused<Arguments...>>
  auto reduce_async(const Arguments&...) {
    refuse_reduction<Arguments...>();
  }
  template <class... Arguments, class = if_refused<Arguments...>>
  auto all_reduce(const Arguments&...) {
    refuse_reduction<Arguments...>();
  }
  template <class... Arguments, class = if_refused<Arguments...>>
  auto all_reduce_async(const Arguments&...) {
    refuse_reduction<Arguments...>();
  }
  template <class... Arguments, class = if_refused<Arguments...>>
  auto reduce_scatter(const Arguments&...) {
    refuse_reduction<Arguments...>();
  }
  template <class... Arguments, class = if_refused<Arguments...>>
  auto reduce_scatter_async(const Arguments&...) {
    refuse_reduction<Arguments...>();
  }
};

}  // namespace shardkit::detail
