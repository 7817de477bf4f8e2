// Rank-ordered reduction of host buffers: reads every rank's elements once, combines them in rank order and writes
// the result to one or more places in the same pass. One answer to the bit, whoever computes it.
#pragma once

#include <shardkit/core/reduction.hpp>

#include <cmath>
#include <cstddef>
#include <type_traits>

namespace shardkit {

/// Combines `count` elements of the `inputs`, in their order, and writes them to every output. An output may be one
/// of the inputs. The caller has checked that the kind suits the element type.
using reduce_function = void (*)(reduction_kind kind, const void* const* inputs, int input_count, void* const* outputs,
                                 int output_count, std::size_t count);

namespace detail {

/// 16-bit floats are summed in float and rounded once.
template <class T>
using accumulator = std::conditional_t<std::is_same<T, float16>::value || std::is_same<T, bfloat16>::value, float, T>;

template <class A>
A smaller(A a, A b) {
  if constexpr (std::is_floating_point<A>::value) {
    if (std::isnan(a)) return a;
    if (std::isnan(b)) return b;
    if (a == b) return std::signbit(a) ? a : b;
  }
  return b < a ? b : a;
}

template <class A>
A larger(A a, A b) {
  if constexpr (std::is_floating_point<A>::value) {
    if (std::isnan(a)) return a;
    if (std::isnan(b)) return b;
    if (a == b) return std::signbit(a) ? b : a;
  }
  return a < b ? b : a;
}

// Integer sums and products wrap around, as in MPI and NCCL, also for signed types.
template <class A, class Combine>
A wrapping(A a, A b, Combine combine) {
  if constexpr (std::is_integral<A>::value && !std::is_same<A, bool>::value) {
    using wide = std::common_type_t<std::make_unsigned_t<A>, unsigned>;
    return static_cast<A>(combine(static_cast<wide>(a), static_cast<wide>(b)));
  } else {
    return static_cast<A>(combine(a, b));
  }
}

template <class T, class Combine>
void reduce_blocks(Combine combine, bool divide, const void* const* inputs, int input_count, void* const* outputs,
                   int output_count, std::size_t count) {
  using A = accumulator<T>;
  // A block stays in the first-level cache between the ranks.
  constexpr std::size_t block = 4096 / sizeof(A);
  A partial[block];
  for (std::size_t at = 0; at < count; at += block) {
    const std::size_t n = count - at < block ? count - at : block;
    const T* first = static_cast<const T*>(inputs[0]) + at;
    for (std::size_t i = 0; i < n; ++i) partial[i] = static_cast<A>(first[i]);
    for (int rank = 1; rank < input_count; ++rank) {
      const T* next = static_cast<const T*>(inputs[rank]) + at;
      for (std::size_t i = 0; i < n; ++i) partial[i] = combine(partial[i], static_cast<A>(next[i]));
    }
    if constexpr (std::is_floating_point<A>::value) {
      if (divide)
        for (std::size_t i = 0; i < n; ++i) partial[i] /= static_cast<A>(input_count);
    }
    for (int target = 0; target < output_count; ++target) {
      T* out = static_cast<T*>(outputs[target]) + at;
      for (std::size_t i = 0; i < n; ++i) out[i] = static_cast<T>(partial[i]);
    }
  }
}

}  // namespace detail

/// The reduce_function of T.
template <class T>
void ordered_reduce(reduction_kind kind, const void* const* inputs, int input_count, void* const* outputs,
                    int output_count, std::size_t count) {
  using A = detail::accumulator<T>;
  const auto run = [&](auto combine, bool divide = false) {
    detail::reduce_blocks<T>(combine, divide, inputs, input_count, outputs, output_count, count);
  };
  switch (kind) {
    case reduction_kind::minimum: return run([](A a, A b) { return detail::smaller(a, b); });
    case reduction_kind::maximum: return run([](A a, A b) { return detail::larger(a, b); });
    default: break;
  }
  if constexpr (!std::is_same<A, bool>::value) {
    const auto add = [](A a, A b) { return detail::wrapping(a, b, [](auto x, auto y) { return x + y; }); };
    if (kind == reduction_kind::sum) return run(add);
    if (kind == reduction_kind::average) return run(add, true);
    if (kind == reduction_kind::product)
      return run([](A a, A b) { return detail::wrapping(a, b, [](auto x, auto y) { return x * y; }); });
  }
  if constexpr (std::is_integral<A>::value) {
    if (kind == reduction_kind::bit_and) return run([](A a, A b) { return static_cast<A>(a & b); });
    if (kind == reduction_kind::bit_or) return run([](A a, A b) { return static_cast<A>(a | b); });
    if (kind == reduction_kind::bit_xor) return run([](A a, A b) { return static_cast<A>(a ^ b); });
  }
}

namespace detail {

/// The reduce_function of an element type that may be the engine's own: by dtype, so that a specialised
/// dtype_traits is enough. Null for types that the host moves but does not reduce.
template <dtype Type>
constexpr reduce_function ordered_reduce_of() noexcept {
  if constexpr (Type == dtype::f64) return &ordered_reduce<double>;
  else if constexpr (Type == dtype::f32) return &ordered_reduce<float>;
  else if constexpr (Type == dtype::f16) return &ordered_reduce<float16>;
  else if constexpr (Type == dtype::bf16) return &ordered_reduce<bfloat16>;
  else if constexpr (Type == dtype::i64) return &ordered_reduce<std::int64_t>;
  else if constexpr (Type == dtype::i32) return &ordered_reduce<std::int32_t>;
  else if constexpr (Type == dtype::i16) return &ordered_reduce<std::int16_t>;
  else if constexpr (Type == dtype::i8) return &ordered_reduce<std::int8_t>;
  else if constexpr (Type == dtype::u64) return &ordered_reduce<std::uint64_t>;
  else if constexpr (Type == dtype::u32) return &ordered_reduce<std::uint32_t>;
  else if constexpr (Type == dtype::u16) return &ordered_reduce<std::uint16_t>;
  else if constexpr (Type == dtype::u8) return &ordered_reduce<std::uint8_t>;
  else if constexpr (Type == dtype::boolean) return &ordered_reduce<bool>;
  else return nullptr;
}

}  // namespace detail
}  // namespace shardkit
