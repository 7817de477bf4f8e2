// Arguments of the typed face: what may be handed in, as what view, and what the compiler says otherwise.
#pragma once

#include <shardkit/core/dtype.hpp>
#include <shardkit/core/view.hpp>

#include <type_traits>

namespace shardkit {

/// A buffer that is input and output of one call; made by in_place.
template <class T, class Space>
struct in_place_view {
  view<T, Space> data;  ///< read, then written
};

namespace detail {

template <class X>
using bare = std::remove_cv_t<std::remove_reference_t<X>>;

template <class X>
struct is_in_place : std::false_type {};
template <class T, class Space>
struct is_in_place<in_place_view<T, Space>> : std::true_type {};

/// Says why X has no view. Its own class, so that this is the first error.
template <class X>
struct require_view {
  static_assert(!is_in_place<bare<X>>::value, "shardkit: in_place(x) stands alone: leave out the second buffer");
  static_assert(has_view<X>::value || is_in_place<bare<X>>::value,
                "shardkit: not a contiguous buffer; pass a vector, span or view, or view(pointer, count)");
  static constexpr bool value = has_view<X>::value;
};

/// A readable buffer of Space as a view of const elements.
template <class Space, class X>
auto input_of(const X& x) {
  if constexpr (require_view<const X>::value) {
    auto given = as_view(x);
    using element = std::remove_const_t<typename decltype(given)::element_type>;
    static_assert(
        is_memory_of<typename decltype(given)::space, Space>,
        "shardkit: the buffer lies in another memory space than the communicator works on; copy it there first");
    return view<const element, Space>(given.data(), given.size());
  } else {
    return view<const std::byte, Space>();
  }
}

/// A writable buffer of Space. X is deduced from a forwarding reference: an owning temporary is refused.
template <class Space, class X>
auto output_of(X&& x) {
  if constexpr (require_view<std::remove_reference_t<X>>::value) {
    auto given = as_view(x);
    using element = typename decltype(given)::element_type;
    static_assert(!std::is_const<element>::value, "shardkit: the output buffer is const; pass one that may be written");
    static_assert(std::is_lvalue_reference<X>::value || is_borrowing<std::remove_reference_t<X>>(),
                  "shardkit: the output is a temporary that owns its elements; name it, so that the result survives");
    static_assert(
        is_memory_of<typename decltype(given)::space, Space>,
        "shardkit: the buffer lies in another memory space than the communicator works on; copy it there first");
    return view<std::remove_const_t<element>, Space>(given.data(), given.size());
  } else {
    return view<std::byte, Space>();
  }
}

/// The same buffer as one of Space.
template <class Space, class T, class Of>
[[gnu::always_inline]] inline in_place_view<T, Space> in_place_of(in_place_view<T, Of> both) noexcept {
  static_assert(
      is_memory_of<Of, Space>,
      "shardkit: the buffer lies in another memory space than the communicator works on; copy it there first");
  return {view<T, Space>(both.data.data(), both.data.size())};
}

template <class In, class Out>
constexpr void require_same_element() {
  static_assert(std::is_same<std::remove_const_t<typename In::element_type>,
                             std::remove_const_t<typename Out::element_type>>::value,
                "shardkit: input and output have different element types; convert one into a buffer of the other's");
}

}  // namespace detail

/// Marks a buffer as both input and output:  comm.all_reduce(in_place(gradients), sum);
template <class X>
auto in_place(X&& x) {
  if constexpr (detail::require_view<std::remove_reference_t<X>>::value) {
    using space = typename decltype(detail::as_view(x))::space;
    auto data = detail::output_of<space>(std::forward<X>(x));
    return in_place_view<typename decltype(data)::element_type, space>{data};
  } else {
    return in_place_view<std::byte, host_space>{};
  }
}

}  // namespace shardkit
