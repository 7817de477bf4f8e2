// Whole matrices in double, multiplied on paper: what sharded layers are compared with.
#pragma once

#include <shardkit/core/partition.hpp>
#include <shardkit/core/view.hpp>

#include <cstddef>
#include <random>
#include <vector>

namespace dense {

/// [rows, columns] of doubles whose values are floats.
struct matrix {
  std::size_t rows = 0, columns = 0;
  std::vector<double> values;

  matrix(std::size_t r, std::size_t c) : rows(r), columns(c), values(r * c) {}
  double& operator()(std::size_t row, std::size_t column) { return values[row * columns + column]; }
  double operator()(std::size_t row, std::size_t column) const { return values[row * columns + column]; }
};

/// Multiples of 1/16 up to 2: sums of a few thousand products of such numbers are exact in float, whatever their
/// order, so that sharded results have to be equal, not just close.
inline matrix exact(std::size_t rows, std::size_t columns, unsigned seed) {
  std::mt19937 random(seed * 7919u + static_cast<unsigned>(rows * 131 + columns));
  matrix result(rows, columns);
  for (double& value : result.values) value = (static_cast<double>(random() % 65) - 32) / 16;
  return result;
}

/// Numbers whose sums do depend on their order.
inline matrix rough(std::size_t rows, std::size_t columns, unsigned seed) {
  std::mt19937 random(seed + static_cast<unsigned>(rows * 131 + columns));
  std::normal_distribution<float> normal;
  matrix result(rows, columns);
  for (double& value : result.values) value = static_cast<double>(normal(random));
  return result;
}

/// x w^T, one rank-one summand after the other, from the last to the first.
inline matrix times_transposed(const matrix& x, const matrix& w) {
  matrix y(x.rows, w.rows);
  for (std::size_t k = x.columns; k-- > 0;)
    for (std::size_t n = 0; n < w.rows; ++n)
      for (std::size_t m = 0; m < x.rows; ++m) y(m, n) += x(m, k) * w(n, k);
  return y;
}

inline void add_row(matrix& y, const matrix& row) {
  for (std::size_t i = 0; i < y.values.size(); ++i) y.values[i] += row.values[i % y.columns];
}
inline void add(matrix& y, const matrix& other) {
  for (std::size_t i = 0; i < y.values.size(); ++i) y.values[i] += other.values[i];
}

/// A part of a matrix in memory of its own, as an engine holds it: rows [r0, r0 + r) and columns [c0, c0 + c), with
/// `gap` elements of nonsense after each row.
template <class T = float>
class stored {
 public:
  stored(std::size_t rows, std::size_t columns, std::size_t gap = 0)
      : rows_(rows), columns_(columns), stride_(columns + gap), values_(rows * (columns + gap), nonsense) {}
  stored(const matrix& whole, std::size_t r0, std::size_t r, std::size_t c0, std::size_t c, std::size_t gap = 0)
      : stored(r, c, gap) {
    for (std::size_t i = 0; i < r; ++i)
      for (std::size_t j = 0; j < c; ++j) values_[i * stride_ + j] = static_cast<T>(whole(r0 + i, c0 + j));
  }
  explicit stored(const matrix& whole, std::size_t gap = 0) : stored(whole, 0, whole.rows, 0, whole.columns, gap) {}

  shardkit::matrix_view<T> view() { return {values_.data(), rows_, columns_, stride_}; }
  shardkit::matrix_view<const T> view() const { return {values_.data(), rows_, columns_, stride_}; }
  shardkit::view<const T> flat() const { return {values_.data(), values_.size()}; }

  static inline const T nonsense = T(-12345.5f);

 private:
  std::size_t rows_, columns_, stride_;
  std::vector<T> values_;
};

/// Elements of `got` that are not those of `expected` from column c0 on; -1 where the shapes differ.
template <class T>
long wrong(shardkit::matrix_view<T> got, const matrix& expected, std::size_t c0 = 0, double tolerance = 0) {
  if (got.rows() != expected.rows || c0 + got.columns() > expected.columns) return -1;
  long count = 0;
  for (std::size_t i = 0; i < got.rows(); ++i)
    for (std::size_t j = 0; j < got.columns(); ++j) {
      const double difference = static_cast<double>(got(i, j)) - expected(i, c0 + j);
      if (!(difference <= tolerance && difference >= -tolerance)) ++count;
    }
  return count;
}

/// Cuts of `total` over `ranks` that an engine may come up with.
inline std::vector<shardkit::partition> cuts(std::size_t total, int ranks) {
  using shardkit::partition;
  std::vector<partition> all{partition::balanced(total, ranks), partition::block(total, ranks),
                             partition::balanced(total, ranks, 4)};
  // Everything on the last rank; nothing on the first, and the rest uneven.
  std::vector<std::size_t> counts(static_cast<std::size_t>(ranks), 0);
  counts.back() = total;
  all.push_back(partition::from_counts(counts));
  for (std::size_t rank = 0; rank < counts.size(); ++rank) counts[rank] = 0;
  for (std::size_t item = 0; item < total; ++item)
    ++counts[counts.size() - 1 - (item * item) % ((counts.size() + 1) / 2)];
  all.push_back(partition::from_counts(counts));
  return all;
}

}  // namespace dense
