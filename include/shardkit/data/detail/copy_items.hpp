// Copies of rows for the padded splits: bit for bit where the element type allows it, by assignment elsewhere
// (strings on the host).
#pragma once

#include <shardkit/core/at.hpp>
#include <shardkit/core/view.hpp>

#include <cstddef>
#include <type_traits>

namespace shardkit::detail {

/// Copies the rows of `from` to as many rows of `to`.
template <class T, class Space>
void copy_rows(matrix_view<T, Space> to, matrix_view<const T, Space> from, const at<Space>& w) {
  if constexpr (std::is_trivially_copyable<T>::value) {
    if (from.empty()) return;
    Space::copy_2d(to.data(), to.row_stride() * sizeof(T), from.data(), from.row_stride() * sizeof(T),
                   from.columns() * sizeof(T), from.rows(), w);
  } else {
    static_assert(std::is_same<Space, host_space>::value, "shardkit: only the host holds elements with constructors");
    for (std::size_t row = 0; row < from.rows(); ++row)
      for (std::size_t column = 0; column < from.columns(); ++column) to(row, column) = from(row, column);
  }
}

/// Repeats row `first` of `rows` in all rows after it.
template <class T, class Space>
void repeat_row(matrix_view<T, Space> rows, std::size_t first, const at<Space>& w) {
  // Each copy doubles what is there, so that a device needs few of them.
  const std::size_t all = rows.rows() - first;
  for (std::size_t done = 1; done < all; done *= 2)
    copy_rows<T, Space>(rows.row_range(first + done, done < all - done ? done : all - done),
                        rows.row_range(first, done < all - done ? done : all - done), w);
}

}  // namespace shardkit::detail
