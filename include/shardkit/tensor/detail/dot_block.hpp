// Dot products of a few rows of x with a few rows of weights, for the vector unit that the machine has: the innermost
// step of simd_gemm. The unit is chosen while running, so that no -march is needed.
#pragma once

#include <shardkit/core/detail/vector_unit.hpp>

#include <cstddef>
#include <utility>

namespace shardkit::detail {

template <class T, std::size_t Bytes>
struct vector_of {
  typedef T type __attribute__((vector_size(Bytes)));
};
template <class T, std::size_t Bytes>
using vector_t = typename vector_of<T, Bytes>::type;

// Sixteen bytes that may lie anywhere.
template <class T>
struct quarter_of {
  typedef T type __attribute__((vector_size(16), aligned(alignof(T)), may_alias));
};
template <class T>
using loaded_quarter = typename quarter_of<T>::type;

// The sum of a vector's elements, by halves. Each is a function of its own for the sake of its target.
template <class T>
[[gnu::always_inline]] inline T lane_sum(const vector_t<T, 16>& v) noexcept {
  if constexpr (sizeof(T) == 4) return (v[0] + v[2]) + (v[1] + v[3]);
  else return v[0] + v[1];
}
#if defined(__x86_64__)
template <class T>
[[gnu::always_inline]] SHARDKIT_AVX2 inline T lane_sum(const vector_t<T, 32>& v) noexcept {
  using words = vector_t<long long, 32>;
  const words w = (words)v;
  return lane_sum<T>((vector_t<T, 16>)__builtin_shufflevector(w, w, 0, 1) +
                     (vector_t<T, 16>)__builtin_shufflevector(w, w, 2, 3));
}
template <class T>
[[gnu::always_inline]] SHARDKIT_AVX512 inline T lane_sum(const vector_t<T, 64>& v) noexcept {
  using words = vector_t<long long, 64>;
  const words w = (words)v;
  const vector_t<T, 32> half = (vector_t<T, 32>)__builtin_shufflevector(w, w, 0, 1, 2, 3) +
                               (vector_t<T, 32>)__builtin_shufflevector(w, w, 4, 5, 6, 7);
  using half_words = vector_t<long long, 32>;
  const half_words h = (half_words)half;
  return lane_sum<T>((vector_t<T, 16>)__builtin_shufflevector(h, h, 0, 1) +
                     (vector_t<T, 16>)__builtin_shufflevector(h, h, 2, 3));
}
#endif

}  // namespace shardkit::detail

// The kernel is a macro: GCC cuts vectors down to what the enclosing function's target has before it inlines, so each
// target needs a body of its own.
//
// sums[n * rows of x + m] = row m of x times row n of weights; the index sequence counts these sums. Accumulators are
// named by constants only, so that all of them live in registers. Each product is summed in one order: the lanes, the
// sum of the lanes, what is left of K by 16 bytes, what is left then. Never inlined: a compiler may round a * b + c
// once here and twice there, and so there is one body for each number of rows.
#define SHARDKIT_DOT_KERNEL(kernel, vector_bytes, most_x_rows, target_attribute)                              \
  struct kernel {                                                                                             \
    static constexpr std::size_t x_rows = most_x_rows;                                                        \
    template <class T, std::size_t... I>                                                                      \
    [[gnu::noinline]] target_attribute static void dots(const T* x, std::size_t x_stride, const T* weights,   \
                                                        std::size_t stride, std::size_t k, T* sums,           \
                                                        std::index_sequence<I...>) noexcept {                 \
      using lanes = vector_t<T, vector_bytes>;                                                                \
      typedef T loaded __attribute__((vector_size(vector_bytes), aligned(alignof(T)), may_alias));            \
      constexpr std::size_t step = vector_bytes / sizeof(T), rows = sizeof...(I) / weight_rows;               \
      const std::size_t whole = k / step * step;                                                              \
      lanes partial[sizeof...(I)] = {};                                                                       \
      for (std::size_t at = 0; at < whole; at += step)                                                        \
        ((partial[I] += *reinterpret_cast<const loaded*>(x + I % rows * x_stride + at) *                      \
                        *reinterpret_cast<const loaded*>(weights + I / rows * stride + at)),                  \
         ...);                                                                                                \
      ((sums[I] = lane_sum<T>(partial[I])), ...);                                                             \
      std::size_t at = whole;                                                                                 \
      constexpr std::size_t quarter = 16 / sizeof(T);                                                         \
      if (vector_bytes > 16 && at + quarter <= k) {                                                           \
        vector_t<T, 16> rest[sizeof...(I)] = {};                                                              \
        for (; at + quarter <= k; at += quarter)                                                              \
          ((rest[I] += *reinterpret_cast<const loaded_quarter<T>*>(x + I % rows * x_stride + at) *            \
                       *reinterpret_cast<const loaded_quarter<T>*>(weights + I / rows * stride + at)),        \
           ...);                                                                                              \
        ((sums[I] += lane_sum<T>(rest[I])), ...);                                                             \
      }                                                                                                       \
      for (; at < k; ++at) ((sums[I] += x[I % rows * x_stride + at] * weights[I / rows * stride + at]), ...); \
    }                                                                                                         \
  };

namespace shardkit::detail {

/// Weight rows of a block: the streams from memory that a core keeps up well.
inline constexpr std::size_t weight_rows = 4;

// As many rows of x as the registers hold products, besides the vectors of x and weights: 32 registers, 16, 16.
#if defined(__x86_64__)
SHARDKIT_DOT_KERNEL(avx512_dots, 64, 4, SHARDKIT_AVX512)
SHARDKIT_DOT_KERNEL(avx2_dots, 32, 3, SHARDKIT_AVX2)
#endif
SHARDKIT_DOT_KERNEL(baseline_dots, 16, 3, )

}  // namespace shardkit::detail

#undef SHARDKIT_DOT_KERNEL
