// What a split takes apart: the elements of a contiguous range or the rows of a matrix. Everything else is told here
// what to do instead.
#pragma once

#include <shardkit/data/cut.hpp>
#include <shardkit/data/matrix_buffer.hpp>

#include <cstddef>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>

namespace shardkit::detail {

template <class X>
using plain = std::remove_cv_t<std::remove_reference_t<X>>;

template <class X>
constexpr bool is_character =
    std::is_same<X, char>::value || std::is_same<X, wchar_t>::value || std::is_same<X, char8_t>::value ||
    std::is_same<X, char16_t>::value || std::is_same<X, char32_t>::value;

/// Strings of any kind, literals and pointers to characters.
template <class X>
struct is_text : std::bool_constant<std::is_pointer<std::decay_t<X>>::value &&
                                    is_character<plain<std::remove_pointer_t<std::decay_t<X>>>>> {};
template <class Character, class Traits, class Allocator>
struct is_text<std::basic_string<Character, Traits, Allocator>> : std::true_type {};
template <class Character, class Traits>
struct is_text<std::basic_string_view<Character, Traits>> : std::true_type {};

template <class X>
struct is_matrix : std::false_type {};
template <class T, class Space>
struct is_matrix<matrix_view<T, Space>> : std::true_type {};
template <class T, class Space>
struct is_matrix<matrix_buffer<T, Space>> : std::true_type {};

template <class X, class = void>
struct is_iterable : std::false_type {};
template <class X>
struct is_iterable<X, std::void_t<decltype(std::declval<X&>().begin()), decltype(std::declval<X&>().end())>>
    : std::true_type {};

template <class X>
constexpr bool has_items =
    !is_text<plain<X>>::value && (is_matrix<plain<X>>::value || has_view<std::remove_reference_t<X>>::value);

template <class T, class Space>
constexpr matrix_view<T, Space> rows_of(matrix_view<T, Space> matrix) noexcept {
  return matrix;
}
template <class T, class Space>
matrix_view<T, Space> rows_of(matrix_buffer<T, Space>& matrix) noexcept {
  return matrix.matrix();
}
template <class T, class Space>
matrix_view<const T, Space> rows_of(const matrix_buffer<T, Space>& matrix) noexcept {
  return matrix.matrix();
}

/// The items of `x` as a view of elements or as a matrix_view of rows; one readable error line for what has none.
template <class X>
constexpr auto items_of(X& x) {
  if constexpr (has_items<X>) {
    if constexpr (is_matrix<plain<X>>::value) return rows_of(x);
    else return as_view(x);
  } else {
    constexpr bool text = is_text<plain<X>>::value;
    constexpr bool pointer = std::is_pointer<plain<X>>::value;
    static_assert(!text,
                  "shardkit: a string is one item, not a list of them; pass a std::vector<std::string>, or "
                  "view(text.data(), text.size()) to split its characters");
    static_assert(text || !pointer,
                  "shardkit: a pointer does not say how many items there are; pass view(pointer, count)");
    static_assert(text || pointer || !is_iterable<X>::value,
                  "shardkit: the elements do not lie side by side in memory; copy the list, set, map, deque or "
                  "vector<bool> into a std::vector of its elements, or split its indices with split_indices(comm, n)");
    static_assert(text || pointer || is_iterable<X>::value,
                  "shardkit: not a list of items; pass a std::vector, span, array, view or matrix_view");
    return view<const std::byte>();
  }
}

template <class X>
using items_type = decltype(items_of(std::declval<std::remove_reference_t<X>&>()));

/// Views point at their elements; an owner is one whose constness is that of its elements.
template <class X>
constexpr bool owns_items() {
  using value = std::remove_reference_t<X>;
  if constexpr (has_items<value> && has_items<const value>)
    return !std::is_same<items_type<std::remove_const_t<value>>, items_type<const value>>::value;
  else return has_items<value>;
}

template <class T, class Space>
constexpr std::size_t item_count(view<T, Space> items) noexcept {
  return items.size();
}
template <class T, class Space>
constexpr std::size_t item_count(matrix_view<T, Space> items) noexcept {
  return items.rows();
}

template <class T, class Space>
constexpr view<T, Space> slice(view<T, Space> items, std::size_t offset, std::size_t count) noexcept {
  return items.subview(offset, count);
}
template <class T, class Space>
constexpr matrix_view<T, Space> slice(matrix_view<T, Space> items, std::size_t offset, std::size_t count) noexcept {
  return items.row_range(offset, count);
}

/// Items as rows: an element is a row of one.
template <class T, class Space>
constexpr matrix_view<T, Space> as_rows(view<T, Space> items) noexcept {
  return {items.data(), items.size(), 1};
}
template <class T, class Space>
constexpr matrix_view<T, Space> as_rows(matrix_view<T, Space> items) noexcept {
  return items;
}

template <class X>
using row_view = decltype(as_rows(std::declval<items_type<X>>()));
template <class X>
using space_of = typename row_view<X>::space;
template <class X>
using element_of = typename row_view<X>::value_type;

/// The rows of an input in Space.
template <class Space, class In>
matrix_view<const element_of<const In>, Space> input_rows(const In& in) {
  static_assert(
      is_memory_of<space_of<const In>, Space>,
      "shardkit: the buffer lies in another memory space than the communicator works on; copy it there first");
  return as_rows(items_of(in));
}

/// The rows of an output, which T elements in Space can be written to.
template <class T, class Space, class Out>
matrix_view<T, Space> output_rows(Out& out) {
  using given = row_view<Out>;
  static_assert(!std::is_const<typename given::element_type>::value,
                "shardkit: the output is const; pass one that may be written");
  static_assert(std::is_same<typename given::value_type, T>::value,
                "shardkit: input and output have different element types; convert one into a buffer of the other's");
  static_assert(is_memory_of<typename given::space, Space>,
                "shardkit: input and output lie in different memory spaces");
  return as_rows(items_of(out));
}

/// The share of a list given as `X&&` is a view that must outlive the call.
template <class X>
constexpr void require_lasting_list() {
  static_assert(std::is_lvalue_reference<X>::value || !owns_items<X>(),
                "shardkit: the share would point into a temporary that ends with this statement; give it a name first");
}

/// So must an output given as `Out&&`.
template <class Out>
constexpr void require_lasting_output() {
  static_assert(std::is_lvalue_reference<Out>::value || !owns_items<Out>(),
                "shardkit: the output is a temporary that owns its elements; name it, so that the result survives");
}

/// Reports wrong shapes as "local is [2, 3] and needs to be [2, 4]".
[[gnu::noinline]] inline void require_shape(const participant& who, const char* operation, const char* what,
                                            std::size_t rows, std::size_t columns, std::size_t needed_rows,
                                            std::size_t needed_columns) {
  if (rows != needed_rows || columns != needed_columns)
    who.reject(operation, sentence() << what << " is [" << rows << ", " << columns << "] and needs to be ["
                                     << needed_rows << ", " << needed_columns << "]");
}

[[noreturn, gnu::cold, gnu::noinline]] inline void reject_lengths(const participant& who, const char* operation,
                                                                  std::size_t list, std::size_t length,
                                                                  std::size_t first_length) {
  who.reject(operation, sentence() << "list " << list << " has " << length << " items and the first has "
                                   << first_length << "; lists that are split together have one length");
}

/// The one length of lists that are split together.
template <class First, class... Rest>
constexpr std::size_t common_length(const participant& who, const char* operation, First first, Rest... rest) {
  const std::size_t lengths[] = {item_count(first), item_count(rest)...};
  for (std::size_t i = 1; i < sizeof...(Rest) + 1; ++i)
    if (lengths[i] != lengths[0]) reject_lengths(who, operation, i + 1, lengths[i], lengths[0]);
  return lengths[0];
}

template <class X>
constexpr bool is_cut = std::is_same<plain<X>, layout>::value || std::is_same<plain<X>, partition>::value ||
                        std::is_same<plain<X>, cut>::value;

template <class Body, class Arguments, std::size_t... I>
constexpr auto call_with(Body& body, const cut& how, const Arguments& arguments, std::index_sequence<I...>) {
  return body(how, std::get<I>(arguments)...);
}

/// Calls body(cut, lists...), where `arguments` are lists and perhaps a last layout, partition or cut.
template <class Body, class... Arguments>
constexpr auto with_cut(Body body, Arguments&... arguments) {
  constexpr std::size_t count = sizeof...(Arguments);
  static_assert(count != 0, "shardkit: nothing to split; pass the list after the communicator");
  const auto all = std::tie(arguments...);
  if constexpr (is_cut<std::tuple_element_t<count - 1, std::tuple<Arguments...>>>)
    return call_with(body, cut(std::get<count - 1>(all)), all, std::make_index_sequence<count - 1>());
  else return call_with(body, cut(), all, std::make_index_sequence<count>());
}

}  // namespace shardkit::detail
