// Equal shares for computations that need one shape on every rank: split, then extended at the end of each share.
// The padding is trimmed again by gather_trim.
#pragma once

#include <shardkit/core/buffer.hpp>
#include <shardkit/data/detail/copy_items.hpp>
#include <shardkit/data/detail/items.hpp>

#include <cstddef>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

namespace shardkit {

/// Pads with the last item of the whole list, bit for bit (-0.0 and NaN payloads too): a valid item, so that the
/// computation needs no special case. The default.
struct repeat_last {};

/// Pads with a value: fill_with{0.0f}; in a matrix every element of the row gets it. On a device pass a whole item
/// that lies there, one element or one row: fill_with{view(pointer, columns)}.
template <class Value>
struct fill_with {
  Value value;  ///< one element, or a view of a whole item
};
template <class Value>
fill_with(Value) -> fill_with<Value>;

namespace detail {

template <class X>
constexpr bool is_fill = false;
template <class Value>
constexpr bool is_fill<fill_with<Value>> = true;
template <class... Arguments>
concept lists_without_fill = (!is_fill<plain<Arguments>> && ...);

/// Whether fill_with holds a whole item, not one value for all elements of it.
template <class T, class Value>
constexpr bool is_item = has_view<const Value>::value && !std::is_convertible<Value, T>::value;

// Checked on every rank before anything is written, whether the rank needs padding or not.
template <class T, class Space>
void require_padding(const participant&, std::size_t, repeat_last) {}
template <class T, class Space, class Value>
void require_padding(const participant& who, std::size_t columns, const fill_with<Value>& padding) {
  if constexpr (is_item<T, Value>) {
    using given = decltype(as_view(padding.value));
    static_assert(
        std::is_same<typename given::value_type, T>::value && std::is_same<typename given::space, Space>::value,
        "shardkit: the padding row has another element type or lies in another space than the list");
    const std::size_t size = as_view(padding.value).size();
    if (size != columns)
      who.reject("pad_and_split", "the padding row has " + std::to_string(size) + " elements and the rows have " +
                                      std::to_string(columns));
  } else {
    static_assert(std::is_same<Space, host_space>::value,
                  "shardkit: a padding value cannot be written on a device from here; pass an item that lies there, "
                  "fill_with{view(pointer, columns)}");
  }
}

/// Writes the first padding row; the caller repeats it.
template <class T, class Space>
void write_padding(matrix_view<T, Space> row, matrix_view<const T, Space> all, repeat_last, const at<Space>& w) {
  copy_rows<T, Space>(row, all.row_range(all.rows() - 1, 1), w);
}
template <class T, class Space, class Value>
void write_padding(matrix_view<T, Space> row, matrix_view<const T, Space>, const fill_with<Value>& padding,
                   const at<Space>& w) {
  if constexpr (is_item<T, Value>) {
    copy_rows<T, Space>(row, matrix_view<const T, Space>(as_view(padding.value).data(), 1, row.columns()), w);
  } else {
    const T value = static_cast<T>(padding.value);
    for (std::size_t column = 0; column < row.columns(); ++column)
      copy_rows<T, Space>(row.column_range(column, 1), matrix_view<const T, Space>(&value, 1, 1), w);
  }
}

template <class T, class Space, class Padding>
void copy_padded(const participant& who, const partition& part, matrix_view<const T, Space> all,
                 matrix_view<T, Space> out, const Padding& padding, const at<Space>& w) {
  require_padding<T, Space>(who, all.columns(), padding);
  const std::size_t count = part.count(who.rank());
  copy_rows<T, Space>(out.row_range(0, count), all.row_range(part.offset(who.rank()), count), w);
  if (count == out.rows()) return;
  write_padding<T, Space>(out.row_range(count, 1), all, padding, w);
  repeat_row(out, count, w);
}

template <class Items, class Padding>
auto padded_copy(const participant& who, const partition& part, Items items, const Padding& padding) {
  using T = typename Items::value_type;
  using space = typename Items::space;
  static_assert(std::is_same<space, host_space>::value,
                "shardkit: on a device give the memory for the share: pad_and_split_into(comm, list, out, ...)");
  const matrix_view<const T, space> all = as_rows(items);
  const std::size_t rows = part.padded_count();
  if constexpr (is_matrix<Items>::value) {
    matrix_buffer<T, space> out(rows, all.columns());
    copy_padded<T, space>(who, part, all, out.matrix(), padding, {});
    return out;
  } else {
    std::conditional_t<std::is_trivially_copyable<T>::value, buffer<T, space>, std::vector<T>> out(rows);
    copy_padded<T, space>(who, part, all, as_rows(view<T, space>(out.data(), rows)), padding, {});
    return out;
  }
}

}  // namespace detail

/// This rank's share, extended to the count of the largest share; as many items on every rank.
///
///     auto mine = pad_and_split(comm, prompts);                        // balanced: at most one item of padding
///     auto mine = pad_and_split(comm, prompts, layout::block);         // padding at the end of the list only
///     auto [ids, lengths] = pad_and_split(comm, all_ids, all_lengths);
///
/// With layout::block rank r holds items min(i, n - 1) of the list for i in [r * m, (r + 1) * m), m = ceil(n / size):
/// gathered shares need only be cut off at n, but a rank may hold nothing but padding. With the balanced layout the
/// padding lies between the shares, and gather_trim takes it out.
///
/// Copies into memory of its own: a buffer<T> (a std::vector<T> where T has constructors), a matrix_buffer of a
/// matrix_view, a tuple of those for several lists; host lists only. An empty list gives an empty share on every
/// rank. Lists of unequal length, or a partition over other counts, fail the communicator and throw usage_error.
template <class... Arguments>
requires detail::lists_without_fill<Arguments...>
auto pad_and_split(participant who, Arguments&&... arguments) {
  return detail::with_cut(
      [&who](const cut& how, auto&... lists) {
        const partition part =
            how.over(detail::common_length(who, "pad_and_split", detail::items_of(lists)...), who, "pad_and_split");
        if constexpr (sizeof...(lists) == 1)
          return (detail::padded_copy(who, part, detail::items_of(lists), repeat_last{}), ...);
        else return std::make_tuple(detail::padded_copy(who, part, detail::items_of(lists), repeat_last{})...);
      },
      arguments...);
}

/// The same, one list, with another padding:  pad_and_split(comm, scores, fill_with{-1.0f});
template <class List, class Value>
auto pad_and_split(participant who, List&& list, fill_with<Value> padding, const cut& how = {}) {
  const auto items = detail::items_of(list);
  return detail::padded_copy(who, how.over(detail::item_count(items), who, "pad_and_split"), items, padding);
}

/// The same into the caller's memory, host or device: `out` has the padded count of items (rows of as many columns
/// for a matrix) and may not overlap `list`. Allocates nothing; ordered on `on`.
template <class List, class Out, class Padding = repeat_last>
void pad_and_split_into(participant who, List&& list, Out&& out, const Padding& padding = {}, const cut& how = {},
                        typename detail::space_of<List>::stream on = {}) {
  using T = detail::element_of<List>;
  using space = detail::space_of<List>;
  detail::require_lasting_output<Out>();
  const matrix_view<const T, space> all = detail::as_rows(detail::items_of(list));
  const matrix_view<T, space> target = detail::output_rows<T, space>(out);
  const partition part = how.over(all.rows(), who, "pad_and_split");
  if (target.rows() != part.padded_count() || target.columns() != all.columns())
    who.reject("pad_and_split", "the output has " + std::to_string(target.rows()) + " items of " +
                                    std::to_string(target.columns()) + " elements and needs " +
                                    std::to_string(part.padded_count()) + " of " + std::to_string(all.columns()));
  detail::copy_padded<T, space>(who, part, all, target, padding, {on, who.site()});
}

}  // namespace shardkit
