// Rank-ordered reduction of host buffers: reads every rank's elements once, combines them in rank order and writes
// the result to one or more places in the same pass. One answer to the bit, whoever computes it.
#pragma once

#include <shardkit/core/detail/simd_reduce.hpp>
#include <shardkit/core/reduction.hpp>

#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace shardkit {

/// Combines `count` elements of the `inputs`, in their order, and writes them to every output. An output may be one
/// of the inputs. The caller has checked that the kind suits the element type.
using reduce_function = void (*)(reduction_kind kind, const void* const* inputs, int input_count, void* const* outputs,
                                 int output_count, std::size_t count);

namespace detail {

// Whether the outputs should be written past the caches, and can: all of them lie alike to a line of 64 bytes, and none
// is an input, whose lines have been read already.
inline bool streams_outputs(const void* const* inputs, int input_count, void* const* outputs, int output_count,
                            std::size_t bytes, std::size_t element) noexcept {
  // Every rank works on a share of this size, and there are as many as inputs.
  if (!goes_past_caches(bytes * static_cast<std::size_t>(input_count) *
                        static_cast<std::size_t>(input_count + output_count)))
    return false;
  const auto place = [](const void* output) { return reinterpret_cast<std::uintptr_t>(output) % 64; };
  for (int target = 0; target < output_count; ++target) {
    if (place(outputs[target]) != place(outputs[0]) || place(outputs[0]) % element != 0) return false;
    for (int rank = 0; rank < input_count; ++rank)
      if (outputs[target] == inputs[rank]) return false;
  }
  return true;
}

/// The loops for one kind of reduction of one type.
struct reduce_kernels {
  using run = void (*)(const void* const* inputs, int input_count, void* const* outputs, int output_count,
                       std::size_t at, std::size_t count, int divisor, bool past_caches) noexcept;

  run plain;  ///< on any machine, and for few elements
  run avx2;
  run avx512;
  bool streams;  ///< whether results may go past the caches
  std::size_t element_bytes;
};

// The widest vectors serve what layers and gradients reduce; each further kernel would cost every user compile time.
// The conversions of float16 take as long for one wide vector as for two.
template <reduction_kind Kind, class T>
inline constexpr reduce_kernels kernels_of = [] {
#if defined(__x86_64__)
  if constexpr (Kind == reduction_kind::sum && !std::is_integral<T>::value)
    return reduce_kernels{baseline_reduce::run<Kind, T>, avx2_reduce::run<Kind, T>,
                          std::is_same<T, float16>::value ? avx2_reduce::run<Kind, T> : avx512_reduce::run<Kind, T>,
                          has_streaming_stores, sizeof(T)};
  else
    return reduce_kernels{reduce_one_by_one<Kind, T>, avx2_reduce::run<Kind, T>, avx2_reduce::run<Kind, T>, false,
                          sizeof(T)};
#else
  return reduce_kernels{baseline_reduce::run<Kind, T>, baseline_reduce::run<Kind, T>, baseline_reduce::run<Kind, T>,
                        false, sizeof(T)};
#endif
}();

inline void reduce_by_vectors(const reduce_kernels& how, const void* const* inputs, int input_count,
                              void* const* outputs, int output_count, std::size_t count, int divisor,
                              bool past_caches) {
  std::size_t head = 0;
  if (past_caches) {  // whole lines only
    const std::size_t rest = (0 - reinterpret_cast<std::uintptr_t>(outputs[0])) % 64 / how.element_bytes;
    head = rest < count ? rest : count;
    how.plain(inputs, input_count, outputs, output_count, 0, head, divisor, false);
  }
  const auto run = best_vector_unit() == vector_unit::avx512 ? how.avx512 : how.avx2;
  run(inputs, input_count, outputs, output_count, head, count, divisor, past_caches);
}

[[gnu::noinline]] inline void reduce_all(const reduce_kernels& how, const void* const* inputs, int input_count,
                                         void* const* outputs, int output_count, std::size_t count, int divisor) {
  const std::size_t bytes = count * how.element_bytes;
  if (bytes < 256 || best_vector_unit() == vector_unit::baseline)
    return how.plain(inputs, input_count, outputs, output_count, 0, count, divisor, false);
  const bool past_caches =
      how.streams && streams_outputs(inputs, input_count, outputs, output_count, bytes, how.element_bytes);
  reduce_by_vectors(how, inputs, input_count, outputs, output_count, count, divisor, past_caches);
}

// The type in which sums, products and bit operations wrap around, and that of comparisons: bool is a byte of 0 or 1.
template <class T>
struct arithmetic_types {
  using wrapping = typename std::conditional_t<std::is_integral<T>::value, std::make_unsigned<T>, std::decay<T>>::type;
  using ordered = T;
};
template <>
struct arithmetic_types<bool> {
  using wrapping = std::uint8_t;
  using ordered = std::uint8_t;
};

}  // namespace detail

/// The reduce_function of T; with OnlySums one for sums and averages, which compiles none of the other kernels.
template <class T, bool OnlySums = false>
void ordered_reduce(reduction_kind kind, const void* const* inputs, int input_count, void* const* outputs,
                    int output_count, std::size_t count) {
  using wrapping = typename detail::arithmetic_types<T>::wrapping;
  const detail::reduce_kernels* how = &detail::kernels_of<reduction_kind::sum, wrapping>;
  if constexpr (!OnlySums) {
    using ordered = typename detail::arithmetic_types<T>::ordered;
    if (kind == reduction_kind::product) how = &detail::kernels_of<reduction_kind::product, wrapping>;
    if (kind == reduction_kind::minimum) how = &detail::kernels_of<reduction_kind::minimum, ordered>;
    if (kind == reduction_kind::maximum) how = &detail::kernels_of<reduction_kind::maximum, ordered>;
    if constexpr (std::is_integral<T>::value) {
      if (kind == reduction_kind::bit_and) how = &detail::kernels_of<reduction_kind::bit_and, wrapping>;
      if (kind == reduction_kind::bit_or) how = &detail::kernels_of<reduction_kind::bit_or, wrapping>;
      if (kind == reduction_kind::bit_xor) how = &detail::kernels_of<reduction_kind::bit_xor, wrapping>;
    }
  }
  const int divisor = kind == reduction_kind::average ? input_count : 1;
  detail::reduce_all(*how, inputs, input_count, outputs, output_count, count, divisor);
}

namespace detail {

/// The reduce_function of an element type that may be the engine's own: by dtype, so that a specialised
/// dtype_traits is enough. Null for types that the host moves but does not reduce.
template <dtype Type, bool OnlySums = false>
constexpr reduce_function ordered_reduce_of() noexcept {
  if constexpr (Type == dtype::f64) return &ordered_reduce<double, OnlySums>;
  else if constexpr (Type == dtype::f32) return &ordered_reduce<float, OnlySums>;
  else if constexpr (Type == dtype::f16) return &ordered_reduce<float16, OnlySums>;
  else if constexpr (Type == dtype::bf16) return &ordered_reduce<bfloat16, OnlySums>;
  else if constexpr (Type == dtype::i64) return &ordered_reduce<std::int64_t, OnlySums>;
  else if constexpr (Type == dtype::i32) return &ordered_reduce<std::int32_t, OnlySums>;
  else if constexpr (Type == dtype::i16) return &ordered_reduce<std::int16_t, OnlySums>;
  else if constexpr (Type == dtype::i8) return &ordered_reduce<std::int8_t, OnlySums>;
  else if constexpr (Type == dtype::u64) return &ordered_reduce<std::uint64_t, OnlySums>;
  else if constexpr (Type == dtype::u32) return &ordered_reduce<std::uint32_t, OnlySums>;
  else if constexpr (Type == dtype::u16) return &ordered_reduce<std::uint16_t, OnlySums>;
  else if constexpr (Type == dtype::u8) return &ordered_reduce<std::uint8_t, OnlySums>;
  else if constexpr (Type == dtype::boolean) return &ordered_reduce<bool, OnlySums>;
  else return nullptr;
}

/// The same for a reduction, of which a compiler often knows the kind.
template <dtype Type>
[[gnu::always_inline]] inline reduce_function ordered_reduce_for(reduction_kind kind) noexcept {
  const bool is_sum = kind == reduction_kind::sum || kind == reduction_kind::average;
  return __builtin_constant_p(is_sum) && is_sum ? ordered_reduce_of<Type, true>() : ordered_reduce_of<Type>();
}

}  // namespace detail
}  // namespace shardkit
