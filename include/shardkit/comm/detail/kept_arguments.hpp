// Arguments that are read after the verb has returned: those of calls that are started, or listed in a group. What ends
// before that, a temporary, does not compile.
#pragma once

#include <shardkit/comm/in_place.hpp>
#include <shardkit/core/partition.hpp>

#include <initializer_list>
#include <type_traits>

namespace shardkit::detail {

template <class X>
struct is_initializer_list : std::false_type {};
template <class T>
struct is_initializer_list<std::initializer_list<T>> : std::true_type {};

/// Whether the elements end with an X: what hands its own constness on to them holds them, what does not points at
/// them.
template <class X>
constexpr bool is_owning() {
  if constexpr (has_view<X>::value && has_view<const X>::value) {
    using element = std::remove_pointer_t<decltype(as_view(std::declval<X&>()).data())>;
    using element_of_const = std::remove_pointer_t<decltype(as_view(std::declval<const X&>()).data())>;
    return is_initializer_list<X>::value || std::is_const<element>::value != std::is_const<element_of_const>::value;
  } else {
    return false;
  }
}

/// Its own class, so that this is the first error. X is deduced from a forwarding reference.
template <class X>
struct require_kept {
  static_assert(std::is_lvalue_reference<X>::value || !is_owning<bare<X>>(),
                "shardkit: the input is a temporary that owns its elements, and ends before they are read; name it, "
                "and keep it until the request, or the group, is complete");
  static constexpr bool value = true;
};

/// A layout that the call refers to.
class kept_layout {
 public:
  template <class Layout, std::enable_if_t<std::is_same<bare<Layout>, partition>::value, int> = 0>
  constexpr kept_layout(Layout&& layout) noexcept : layout_(&layout) {
    static_assert(std::is_lvalue_reference<Layout>::value,
                  "shardkit: the layout is a temporary, and ends before the call does; name it, and keep it until the "
                  "request, or the group, is complete");
  }
  constexpr operator const partition&() const noexcept { return *layout_; }

 private:
  const partition* layout_;
};

}  // namespace shardkit::detail
