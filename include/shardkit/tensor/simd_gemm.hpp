// A GEMM that needs no library: vector instructions of the machine at hand, one thread. Made for few rows, where
// reading the weights is all that counts and a BLAS is at half of the memory's speed; see gemm.hpp for the contract.
#pragma once

#include <shardkit/tensor/detail/dot_block.hpp>
#include <shardkit/tensor/gemm.hpp>

#include <algorithm>
#include <cstddef>
#include <type_traits>

namespace shardkit {
namespace detail {

/// One GEMM, cut into blocks for Kernel.
template <class Kernel, class T>
class simd_multiplication {
 public:
  simd_multiplication(matrix_view<const T> x, matrix_view<const T> weights, matrix_view<T> y, const gemm_args<T>& args)
      : x_(x), weights_(weights), y_(y), args_(args) {}

  void run() const {
    // Rows of x that stay in the second-level cache while the weights pass.
    constexpr std::size_t resident = 64;
    for (std::size_t m = 0; m < y_.rows(); m += resident) {
      const std::size_t end = std::min(y_.rows(), m + resident);
      if (end - m < resident / 2) stream_weights(m, end);
      else tile_weights(m, end);
    }
  }

 private:
  // Weight rows n, n + step, ... are taken together; of these, the ones before number `fresh` were done already.
  struct weight_group {
    std::size_t n, step, fresh;
  };

  // Where the weights come from memory: each row of a group belongs to another part of the matrix, so that the
  // prefetchers see a few long streams. The parts overlap by what does not divide; only the last one writes there.
  void stream_weights(std::size_t first, std::size_t end) const {
    const std::size_t step = y_.columns() / weight_rows;
    const std::size_t length = y_.columns() - (weight_rows - 1) * step;
    for (std::size_t n = 0; n < length; ++n) multiply_group(first, end, {n, step, n < step ? 0 : weight_rows - 1});
  }

  // Where arithmetic takes longer than memory: neighbouring rows, whose results share cache lines.
  void tile_weights(std::size_t first, std::size_t end) const {
    if (y_.columns() < weight_rows) return stream_weights(first, end);
    for (std::size_t n = 0; n < y_.columns(); n += weight_rows) {
      const std::size_t start = std::min(n, y_.columns() - weight_rows);
      multiply_group(first, end, {start, 1, n - start});
    }
  }

  void multiply_group(std::size_t m, std::size_t end, weight_group group) const {
    for (; m + Kernel::x_rows <= end; m += Kernel::x_rows) multiply_block<Kernel::x_rows>(m, group);
    switch (end - m) {
      case 3: return multiply_block<3>(m, group);
      case 2: return multiply_block<2>(m, group);
      case 1: return multiply_block<1>(m, group);
      default: return;
    }
  }

  template <std::size_t Rows>
  void multiply_block(std::size_t m, weight_group group) const {
    T sums[Rows * weight_rows];
    Kernel::dots(x_.row(m).data(), x_.row_stride(), weights_.row(group.n).data(), group.step * weights_.row_stride(),
                 x_.columns(), sums, std::make_index_sequence<Rows * weight_rows>());
    for (std::size_t i = 0; i < Rows; ++i)
      for (std::size_t j = group.fresh; j < weight_rows; ++j) {
        const std::size_t n = group.n + j * group.step;
        if (plain_) y_(m + i, n) = args_.alpha * sums[j * Rows + i];
        else store_result(y_, m + i, n, sums[j * Rows + i], args_);
      }
  }

  matrix_view<const T> x_, weights_;
  matrix_view<T> y_;
  const gemm_args<T>& args_;
  const bool plain_ = args_.beta == 0 && args_.bias.data() == nullptr && args_.residual.data() == nullptr;

  static_assert(Kernel::x_rows <= 4, "multiply_group lists the remainders");
};

/// The same with the vector unit given.
template <class T>
void simd_multiply(vector_unit unit, matrix_view<const T> x, matrix_view<const T> weights, matrix_view<T> y,
                   const gemm_args<T>& args) {
  if (y.empty()) return;
#if defined(__x86_64__)
  if (unit == vector_unit::avx512) return simd_multiplication<avx512_dots, T>(x, weights, y, args).run();
  if (unit == vector_unit::avx2) return simd_multiplication<avx2_dots, T>(x, weights, y, args).run();
#endif
  simd_multiplication<baseline_dots, T>(x, weights, y, args).run();
}

}  // namespace detail

/// GEMM of float and double on one thread, without a library. Weight rows do not see each other: for the same rows of x
/// and the same machine, column-parallel shards have the bits of the unsharded result.
struct simd_gemm {
  void operator()(matrix_view<const float> x, matrix_view<const float> weights, matrix_view<float> y,
                  const gemm_args<float>& args, host_space::stream = {}) const {
    detail::simd_multiply(detail::best_vector_unit(), x, weights, y, args);
  }
  void operator()(matrix_view<const double> x, matrix_view<const double> weights, matrix_view<double> y,
                  const gemm_args<double>& args, host_space::stream = {}) const {
    detail::simd_multiply(detail::best_vector_unit(), x, weights, y, args);
  }
};

}  // namespace shardkit
