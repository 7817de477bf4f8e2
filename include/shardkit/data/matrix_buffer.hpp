// An owned row-major matrix: what pad_and_split and gather_trim return for rows of several elements.
#pragma once

#include <shardkit/core/buffer.hpp>

#include <cstddef>

namespace shardkit {

/// Owns [rows, columns] elements without gaps between the rows, uninitialised at first. Move-only.
template <class T, class Space = host_space>
class matrix_buffer {
 public:
  using value_type = T;
  using space = Space;

  matrix_buffer() noexcept = default;
  matrix_buffer(std::size_t rows, std::size_t columns) : storage_(rows * columns), rows_(rows), columns_(columns) {}

  /// Extent of the first dimension.
  std::size_t rows() const noexcept { return rows_; }
  /// Elements of a row; rows follow each other without gaps.
  std::size_t columns() const noexcept { return columns_; }
  /// All elements, rows * columns.
  std::size_t size() const noexcept { return storage_.size(); }
  T* data() noexcept { return storage_.data(); }
  const T* data() const noexcept { return storage_.data(); }

  /// A view [rows(), columns()] of the elements.
  matrix_view<T, Space> matrix() noexcept { return {data(), rows_, columns_}; }
  /// The same, to be read only.
  matrix_view<const T, Space> matrix() const noexcept { return {data(), rows_, columns_}; }

 private:
  buffer<T, Space> storage_;
  std::size_t rows_ = 0, columns_ = 0;
};

/// Its elements, row by row.
template <class T, class Space>
view<T, Space> view_of(matrix_buffer<T, Space>& owner) noexcept {
  return {owner.data(), owner.size()};
}
/// Its elements, row by row.
template <class T, class Space>
view<const T, Space> view_of(const matrix_buffer<T, Space>& owner) noexcept {
  return {owner.data(), owner.size()};
}

}  // namespace shardkit
