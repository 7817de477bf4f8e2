// What the parallel layers ask of a matrix multiplication: a callable of one fixed shape, the engine's own or one of
// the adaptors beside this file. reference_gemm is the plainest of them.
//
//   gemm(x, weights, y, gemm_args, where)       y = alpha * x * weights^T + beta * y + bias + residual
//
// x is [M, K], weights [N, K] as in Hugging Face checkpoints, y [M, N], all row-major with a row stride. The layers
// never look into `weights`: packed and quantised ones are a type that the engine's GEMM understands, and where that
// has an input_type, x consists of those in place of y's elements. They call it with M, N > 0; K may be 0, and then
// y = beta * y + bias + residual. `where` is an at<Space>, which converts to a stream: a GEMM that needs no call site
// takes the stream.
#pragma once

#include <shardkit/core/operations.hpp>

#include <concepts>
#include <cstddef>

namespace shardkit {

/// Factors and summands of a GEMM. Where beta is 0, y is not read.
template <class T, class Space = host_space>
struct gemm_args {
  using factor = detail::accumulator<T>;  ///< float for 16-bit floats, else T

  factor alpha = 1;                           ///< of the product
  factor beta = 0;                            ///< of what y holds
  view<const T, Space> bias = {};             ///< [N], or null
  matrix_view<const T, Space> residual = {};  ///< [M, N], or null; may not overlap y (use beta = 1)
  view<std::byte, Space> workspace = {};      ///< scratch memory for a GEMM that needs some
};

/// Whether Gemm multiplies activations of Input by Weights into T in Space.
template <class Gemm, class Weights, class T, class Space, class Input = T>
concept gemm_for = requires(Gemm& gemm, matrix_view<const Input, Space> x, const Weights& weights,
                            matrix_view<T, Space> y, const gemm_args<T, Space>& args, const at<Space>& where) {
  gemm(x, weights, y, args, where);
};

namespace detail {

/// The value that a GEMM stores at y(m, n), given the dot product of its row and its weights.
template <class T>
void store_result(matrix_view<T> y, std::size_t m, std::size_t n, accumulator<T> dot, const gemm_args<T>& args) {
  accumulator<T> value = args.alpha * dot;
  if (args.beta != 0) value += args.beta * static_cast<accumulator<T>>(y(m, n));
  if (args.bias.data() != nullptr) value += static_cast<accumulator<T>>(args.bias[n]);
  if (args.residual.data() != nullptr) value += static_cast<accumulator<T>>(args.residual(m, n));
  y(m, n) = static_cast<T>(value);
}

}  // namespace detail

/// Every element by itself, summed in ascending k by the same instructions: the bits of y(m, n) depend on row m, weight
/// row n and K alone, so that column-parallel shards equal the unsharded result. 16-bit floats are summed in float.
/// Slow.
struct reference_gemm {
  template <class T>
  void operator()(matrix_view<const detail::as_given_t<T>> x, matrix_view<const detail::as_given_t<T>> weights,
                  matrix_view<T> y, const gemm_args<detail::as_given_t<T>>& args, host_space::stream = {}) const {
    for (std::size_t m = 0; m < y.rows(); ++m)
      for (std::size_t n = 0; n < y.columns(); ++n) element(x, weights, y, m, n, args);
  }

 private:
  // Not inlined: each copy of the loop might round a * b + c in its own way.
  template <class T>
  [[gnu::noinline]] static void element(matrix_view<const T> x, matrix_view<const T> weights, matrix_view<T> y,
                                        std::size_t m, std::size_t n, const gemm_args<T>& args) {
    using wide = detail::accumulator<T>;
    wide dot = 0;
    for (std::size_t k = 0; k < x.columns(); ++k) dot += static_cast<wide>(x(m, k)) * static_cast<wide>(weights(n, k));
    detail::store_result(y, m, n, dot, args);
  }
};

}  // namespace shardkit
