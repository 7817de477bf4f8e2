// Non-owning views of one-dimensional and row-major two-dimensional memory, and view_of: the one function that
// decides what may be handed to a verb.
#pragma once

#include <shardkit/core/space.hpp>

#include <cstddef>
#include <string>  // has std::data and std::size, at a fraction of what <iterator> costs
#include <type_traits>
#include <utility>

namespace shardkit {
namespace detail {

/// Whether a view of U in Of may become one of T in Space: the same elements, const where it was not, in memory that
/// is that of Space, too.
template <class U, class Of, class T, class Space>
inline constexpr bool views_convert =
    (std::is_same<U, T>::value || std::is_same<const U, T>::value) && is_memory_of<Of, Space> &&
    !(std::is_same<U, T>::value && std::is_same<Of, Space>::value);

}  // namespace detail

/// `size` contiguous elements of T in Space. Pointer and count are passed as `view(pointer, count)`.
template <class T, class Space = host_space>
class view {
 public:
  using value_type = std::remove_cv_t<T>;
  using element_type = T;
  using space = Space;

  constexpr view() noexcept = default;
  constexpr view(T* data, std::size_t size) noexcept : data_(data), size_(size) {}
  template <class U, class Of, std::enable_if_t<detail::views_convert<U, Of, T, Space>, int> = 0>
  constexpr view(view<U, Of> other) noexcept : data_(other.data()), size_(other.size()) {}

  constexpr T* data() const noexcept { return data_; }
  constexpr std::size_t size() const noexcept { return size_; }
  /// size() in bytes.
  constexpr std::size_t bytes() const noexcept { return size_ * sizeof(T); }
  constexpr bool empty() const noexcept { return size_ == 0; }
  constexpr T* begin() const noexcept { return data_; }
  constexpr T* end() const noexcept { return data_ + size_; }
  constexpr T& operator[](std::size_t index) const noexcept { return data_[index]; }

  /// Elements [offset, offset + count); the caller keeps within size().
  constexpr view subview(std::size_t offset, std::size_t count) const noexcept { return {data_ + offset, count}; }

 private:
  T* data_ = nullptr;
  std::size_t size_ = 0;
};

template <class T>
view(T*, std::size_t) -> view<T, host_space>;

/// Row-major matrix: element (row, column) lies at data[row * row_stride + column].
template <class T, class Space = host_space>
class matrix_view {
 public:
  using value_type = std::remove_cv_t<T>;
  using element_type = T;
  using space = Space;

  constexpr matrix_view() noexcept = default;
  constexpr matrix_view(T* data, std::size_t rows, std::size_t columns) noexcept
      : matrix_view(data, rows, columns, columns) {}
  constexpr matrix_view(T* data, std::size_t rows, std::size_t columns, std::size_t row_stride) noexcept
      : data_(data), rows_(rows), columns_(columns), row_stride_(row_stride) {}
  template <class U, class Of, std::enable_if_t<detail::views_convert<U, Of, T, Space>, int> = 0>
  constexpr matrix_view(matrix_view<U, Of> other) noexcept
      : matrix_view(other.data(), other.rows(), other.columns(), other.row_stride()) {}

  constexpr T* data() const noexcept { return data_; }
  /// Extent of the first dimension.
  constexpr std::size_t rows() const noexcept { return rows_; }
  /// Elements of a row, without the gap behind it.
  constexpr std::size_t columns() const noexcept { return columns_; }
  /// Elements from one row to the next.
  constexpr std::size_t row_stride() const noexcept { return row_stride_; }
  constexpr bool empty() const noexcept { return rows_ == 0 || columns_ == 0; }
  /// Whether the rows follow each other without gaps.
  constexpr bool contiguous() const noexcept { return row_stride_ == columns_ || rows_ <= 1; }

  constexpr T& operator()(std::size_t row, std::size_t column) const noexcept {
    return data_[row * row_stride_ + column];
  }
  /// The elements of one row; index < rows().
  constexpr view<T, Space> row(std::size_t index) const noexcept { return {data_ + index * row_stride_, columns_}; }
  /// Rows [first, first + count).
  constexpr matrix_view row_range(std::size_t first, std::size_t count) const noexcept {
    return {data_ + first * row_stride_, count, columns_, row_stride_};
  }
  /// Columns [first, first + count) of every row.
  constexpr matrix_view column_range(std::size_t first, std::size_t count) const noexcept {
    return {rows_ == 0 ? data_ : data_ + first, rows_, count, row_stride_};  // no rows: data may be null
  }
  /// All elements as one view; only for a contiguous matrix.
  constexpr view<T, Space> flat() const noexcept { return {data_, rows_ * columns_}; }

 private:
  T* data_ = nullptr;
  std::size_t rows_ = 0, columns_ = 0, row_stride_ = 0;
};

template <class T>
matrix_view(T*, std::size_t, std::size_t) -> matrix_view<T, host_space>;
template <class T>
matrix_view(T*, std::size_t, std::size_t, std::size_t) -> matrix_view<T, host_space>;

namespace detail {

template <class X, class = void>
struct is_contiguous_range : std::false_type {};
template <class X>
struct is_contiguous_range<
    X, std::void_t<decltype(std::data(std::declval<X&>())), decltype(std::size(std::declval<X&>()))>> : std::true_type {
};

}  // namespace detail

/// A view is one already.
template <class T, class Space>
constexpr view<T, Space> view_of(view<T, Space> already) noexcept {
  return already;
}

/// Anything with std::data and std::size: vector, array, C array, span, initializer_list.
///
/// This is the customisation point. For an engine's own tensor, declare beside it (found by argument-dependent
/// lookup):  shardkit::view<float, shardkit::host_space> view_of(my_tensor& tensor);
template <class X, std::enable_if_t<detail::is_contiguous_range<X>::value, int> = 0>
constexpr auto view_of(X& range) noexcept {
  return view<std::remove_pointer_t<decltype(std::data(range))>, host_space>(std::data(range), std::size(range));
}

namespace detail {

// Called from here so that the lookup sees both our overloads and, by argument, the user's.
template <class X>
constexpr auto as_view(X& x) -> decltype(view_of(x)) {
  return view_of(x);
}

template <class X, class = void>
struct has_view : std::false_type {};
template <class X>
struct has_view<X, std::void_t<decltype(as_view(std::declval<X&>()))>> : std::true_type {};

/// Whether X merely points at its elements, so that a temporary X is a fine output: constness of X is not
/// constness of the elements.
template <class X>
constexpr bool is_borrowing() {
  if constexpr (has_view<const X>::value) {
    using element = std::remove_pointer_t<decltype(as_view(std::declval<const X&>()).data())>;
    return !std::is_const<element>::value;
  } else {
    return false;
  }
}

}  // namespace detail
}  // namespace shardkit
