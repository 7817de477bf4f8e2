// Element-wise combination of the ranks' elements with vector instructions: the innermost loops of ordered_reduce.
// Every unit gives the same bits, since lanes do not see each other.
#pragma once

#include <shardkit/core/detail/host_device.hpp>
#include <shardkit/core/detail/streaming_stores.hpp>
#include <shardkit/core/detail/vector_unit.hpp>
#include <shardkit/core/reduction.hpp>

#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace shardkit::detail {

/// 16-bit floats are combined in float and rounded once.
template <class T>
using accumulator = std::conditional_t<std::is_same<T, float16>::value || std::is_same<T, bfloat16>::value, float, T>;

template <reduction_kind Kind, class A>
SHARDKIT_HOST_DEVICE A combine_one(A a, A b) noexcept {
  if constexpr (Kind == reduction_kind::minimum || Kind == reduction_kind::maximum) {
    if constexpr (std::is_floating_point<A>::value) {
      if (a != a) return a;
      if (b != b) return b;
      if (a == b) return (__builtin_signbit(a) != 0) == (Kind == reduction_kind::minimum) ? a : b;
    }
    return (Kind == reduction_kind::minimum ? b < a : a < b) ? b : a;
  } else if constexpr (std::is_floating_point<A>::value) {
    return Kind == reduction_kind::product ? a * b : a + b;
  } else {
    // Sums and products wrap around, as in MPI and NCCL, also for signed types.
    using wide = std::common_type_t<std::make_unsigned_t<A>, unsigned>;
    const wide x = static_cast<wide>(a), y = static_cast<wide>(b);
    if constexpr (Kind == reduction_kind::product) return static_cast<A>(x * y);
    else if constexpr (Kind == reduction_kind::bit_and) return static_cast<A>(x & y);
    else if constexpr (Kind == reduction_kind::bit_or) return static_cast<A>(x | y);
    else if constexpr (Kind == reduction_kind::bit_xor) return static_cast<A>(x ^ y);
    else return static_cast<A>(x + y);
  }
}

#if defined(__x86_64__)
[[gnu::always_inline]] SHARDKIT_AVX2 inline lanes<float, 32> widen_half(const lanes<short, 16>& bits) noexcept {
  return __builtin_ia32_vcvtph2ps256(bits);
}
[[gnu::always_inline]] SHARDKIT_AVX2 inline lanes<short, 16> round_half(const lanes<float, 32>& values) noexcept {
  return __builtin_ia32_vcvtps2ph256(values, 0);
}
#if defined(__clang__)
using every_lane = unsigned short;
#else
using every_lane = short;
#endif
[[gnu::always_inline]] SHARDKIT_AVX512 inline lanes<float, 64> widen_half(const lanes<short, 32>& bits) noexcept {
  return __builtin_ia32_vcvtph2ps512_mask(bits, lanes<float, 64>{}, static_cast<every_lane>(-1), 4);
}
[[gnu::always_inline]] SHARDKIT_AVX512 inline lanes<short, 32> round_half(const lanes<float, 64>& values) noexcept {
  return __builtin_ia32_vcvtps2ph512_mask(values, 0, lanes<short, 32>{}, 0xffff);
}

/// Rounds the bfloat16 in even places (`low`) and odd ones, as `rounded` in the kernels does. Where the machine has
/// instructions for it: as assembler, so that one kernel serves machines with and without. They take subnormal numbers
/// for zeros: false, with nothing done, where there is one.
[[gnu::always_inline]] SHARDKIT_AVX512 inline bool round_bfloats(const lanes<float, 64>& low,
                                                                 const lanes<float, 64>& high,
                                                                 lanes<std::uint32_t, 64>& result) noexcept {
  constexpr lanes<short, 64> in_turn = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                        8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  unsigned short low_subnormal, high_subnormal;
  asm("vfpclassps $0x20, %1, %0" : "=k"(low_subnormal) : "v"(low));
  asm("vfpclassps $0x20, %1, %0" : "=k"(high_subnormal) : "v"(high));
  if (__builtin_expect((low_subnormal | high_subnormal) != 0, false)) return false;
  lanes<short, 64> halves;
  asm("vcvtne2ps2bf16 %2, %1, %0" : "=v"(halves) : "v"(high), "v"(low));
  asm("vpermw %1, %2, %0" : "=v"(result) : "v"(halves), "v"(in_turn));
  return true;
}
#endif
// Without the instruction, four by four.
inline lanes<float, 16> widen_half(const lanes<short, 8>& bits) noexcept {
  lanes<float, 16> values{};
  for (int i = 0; i < 4; ++i) values[i] = float_from_half(static_cast<std::uint16_t>(bits[i]));
  return values;
}
inline lanes<short, 8> round_half(const lanes<float, 16>& values) noexcept {
  lanes<short, 8> bits{};
  for (int i = 0; i < 4; ++i) bits[i] = static_cast<short>(half_bits(values[i]));
  return bits;
}

/// The elements [at, count) one by one: all of a few, and what is left over by vectors.
template <reduction_kind Kind, class T>
[[gnu::noinline]] void reduce_one_by_one(const void* const* inputs, int input_count, void* const* outputs,
                                         int output_count, std::size_t at, std::size_t count, int divisor,
                                         bool = false) noexcept {
  using A = accumulator<T>;
  for (; at < count; ++at) {
    A one = static_cast<A>(static_cast<const T*>(inputs[0])[at]);
    for (int rank = 1; rank < input_count; ++rank)
      one = combine_one<Kind>(one, static_cast<A>(static_cast<const T*>(inputs[rank])[at]));
    if constexpr (std::is_floating_point<A>::value) {
      if (divisor != 1) one /= static_cast<A>(divisor);
    }
    for (int target = 0; target < output_count; ++target) static_cast<T*>(outputs[target])[at] = static_cast<T>(one);
  }
}

}  // namespace shardkit::detail

// The kernel is a macro: GCC cuts vectors down to what the enclosing function's target has before it inlines, so each
// target needs a body of its own.
//
// `run` reads the elements [at, count) of the inputs once, combines them in order, divides by `divisor` unless it is 1,
// and writes the result to all outputs; past the caches only sums of floats, where the outputs are aligned for it at
// `at`.
#define SHARDKIT_REDUCE_KERNEL(kernel, vector_bytes, attribute)                                                   \
  struct kernel {                                                                                                 \
    template <class T>                                                                                            \
    using vector = lanes<accumulator<T>, vector_bytes>;                                                           \
    using words = lanes<std::uint32_t, vector_bytes>;                                                             \
                                                                                                                  \
    /* Four vectors of accumulators. Of 16-bit floats, bfloat16 go by the even and the odd ones. */               \
    template <class T>                                                                                            \
    struct block {                                                                                                \
      vector<T> a, b, c, d;                                                                                       \
    };                                                                                                            \
    template <class T>                                                                                            \
    [[gnu::always_inline]] attribute static block<T> load(const void* from) noexcept {                            \
      if constexpr (std::is_same<T, float16>::value) {                                                            \
        const auto* bits = static_cast<const loose_lanes<short, vector_bytes / 2>*>(from);                        \
        const lanes<short, vector_bytes / 2> a = bits[0], b = bits[1], c = bits[2], d = bits[3];                  \
        return {widen_half(a), widen_half(b), widen_half(c), widen_half(d)};                                      \
      } else if constexpr (std::is_same<T, bfloat16>::value) {                                                    \
        const auto* bits = static_cast<const loose_lanes<std::uint32_t, vector_bytes>*>(from);                    \
        const words low = bits[0], high = bits[1];                                                                \
        return {(vector<T>)(low << 16), (vector<T>)(low & 0xffff0000u), (vector<T>)(high << 16),                  \
                (vector<T>)(high & 0xffff0000u)};                                                                 \
      } else {                                                                                                    \
        const auto* values = static_cast<const loose_lanes<T, vector_bytes>*>(from);                              \
        return {values[0], values[1], values[2], values[3]};                                                      \
      }                                                                                                           \
    }                                                                                                             \
    /* A rounded bfloat16 in the upper half of each lane. */                                                      \
    [[gnu::always_inline]] attribute static words rounded(const lanes<float, vector_bytes>& value) noexcept {     \
      const words bits = (words)value;                                                                            \
      return value == value ? bits + 0x7fffu + ((bits >> 16) & 1u) : bits | 0x00400000u;                          \
    }                                                                                                             \
    /* A block as it lies in memory. */                                                                           \
    struct halves {                                                                                               \
      lanes<short, vector_bytes / 2> a, b, c, d;                                                                  \
    };                                                                                                            \
    struct pairs {                                                                                                \
      words a, b;                                                                                                 \
    };                                                                                                            \
    template <class Vector>                                                                                       \
    [[gnu::always_inline]] attribute static words rounded(const Vector& low, const Vector& high,                  \
                                                          [[maybe_unused]] bool by_instruction) noexcept {        \
      if constexpr (vector_bytes == 64) {                                                                         \
        words both;                                                                                               \
        if (by_instruction && round_bfloats(low, high, both)) return both;                                        \
      }                                                                                                           \
      return rounded(low) >> 16 | (rounded(high) & 0xffff0000u);                                                  \
    }                                                                                                             \
    template <class T>                                                                                            \
    [[gnu::always_inline]] attribute static auto packed(const block<T>& x,                                        \
                                                        [[maybe_unused]] bool by_instruction) noexcept {          \
      if constexpr (std::is_same<T, float16>::value)                                                              \
        return halves{round_half(x.a), round_half(x.b), round_half(x.c), round_half(x.d)};                        \
      else if constexpr (std::is_same<T, bfloat16>::value)                                                        \
        return pairs{rounded(x.a, x.b, by_instruction), rounded(x.c, x.d, by_instruction)};                       \
      else return x;                                                                                              \
    }                                                                                                             \
    template <class T, bool PastCaches, class Vector>                                                             \
    [[gnu::always_inline]] attribute static void put(void* to, const Vector& value) noexcept {                    \
      using A = std::conditional_t<std::is_same<T, bfloat16>::value, std::uint32_t,                               \
                                   std::conditional_t<std::is_same<T, float16>::value, short, T>>;                \
      if constexpr (PastCaches) store_past_caches(to, (lanes<long long, sizeof value>)value);                     \
      else *static_cast<loose_lanes<A, sizeof value>*>(to) = value;                                               \
    }                                                                                                             \
    template <class T, bool PastCaches, class Packed>                                                             \
    [[gnu::always_inline]] attribute static void store(void* to, const Packed& x) noexcept {                      \
      auto* out = static_cast<unsigned char*>(to);                                                                \
      put<T, PastCaches>(out, x.a);                                                                               \
      put<T, PastCaches>(out + sizeof x.a, x.b);                                                                  \
      if constexpr (!std::is_same<T, bfloat16>::value) {                                                          \
        put<T, PastCaches>(out + 2 * sizeof x.a, x.c);                                                            \
        put<T, PastCaches>(out + 3 * sizeof x.a, x.d);                                                            \
      }                                                                                                           \
    }                                                                                                             \
    template <reduction_kind Kind, class T>                                                                       \
    [[gnu::always_inline]] attribute static void combine(vector<T>& a, const vector<T>& b) noexcept {             \
      if constexpr (Kind == reduction_kind::minimum || Kind == reduction_kind::maximum) {                         \
        vector<T> best = (Kind == reduction_kind::minimum ? b < a : a < b) ? b : a;                               \
        if constexpr (std::is_floating_point<accumulator<T>>::value) {                                            \
          using signs = lanes<std::conditional_t<sizeof(accumulator<T>) == 4, int, long long>, vector_bytes>;     \
          const signs zero = Kind == reduction_kind::minimum ? (signs)a | (signs)b : (signs)a & (signs)b;         \
          best = a == b ? (vector<T>)zero : best;                                                                 \
          best = b == b ? best : b;                                                                               \
          best = a == a ? best : a;                                                                               \
        }                                                                                                         \
        a = best;                                                                                                 \
      } else if constexpr (Kind == reduction_kind::product) {                                                     \
        a *= b;                                                                                                   \
      } else if constexpr (Kind == reduction_kind::bit_and) {                                                     \
        a &= b;                                                                                                   \
      } else if constexpr (Kind == reduction_kind::bit_or) {                                                      \
        a |= b;                                                                                                   \
      } else if constexpr (Kind == reduction_kind::bit_xor) {                                                     \
        a ^= b;                                                                                                   \
      } else {                                                                                                    \
        a += b;                                                                                                   \
      }                                                                                                           \
    }                                                                                                             \
    template <reduction_kind Kind, class T>                                                                       \
    [[gnu::noinline]] attribute static void run(const void* const* inputs, int input_count, void* const* outputs, \
                                                int output_count, std::size_t at, std::size_t count, int divisor, \
                                                bool past_caches = false) noexcept {                              \
      using A = accumulator<T>;                                                                                   \
      constexpr std::size_t step = 4 * vector_bytes / sizeof(A);                                                  \
      const bool by_instruction = std::is_same<T, bfloat16>::value && vector_bytes == 64 && rounds_bfloats();     \
      for (; at + step <= count; at += step) {                                                                    \
        block<T> x = load<T>(static_cast<const T*>(inputs[0]) + at);                                              \
        for (int rank = 1; rank < input_count; ++rank) {                                                          \
          const block<T> y = load<T>(static_cast<const T*>(inputs[rank]) + at);                                   \
          combine<Kind, T>(x.a, y.a);                                                                             \
          combine<Kind, T>(x.b, y.b);                                                                             \
          combine<Kind, T>(x.c, y.c);                                                                             \
          combine<Kind, T>(x.d, y.d);                                                                             \
        }                                                                                                         \
        if constexpr (std::is_floating_point<A>::value && Kind == reduction_kind::sum) {                          \
          if (divisor != 1) {                                                                                     \
            x.a /= static_cast<A>(divisor);                                                                       \
            x.b /= static_cast<A>(divisor);                                                                       \
            x.c /= static_cast<A>(divisor);                                                                       \
            x.d /= static_cast<A>(divisor);                                                                       \
          }                                                                                                       \
        }                                                                                                         \
        const auto result = packed<T>(x, by_instruction);                                                         \
        for (int target = 0; target < output_count; ++target) {                                                   \
          T* const to = static_cast<T*>(outputs[target]) + at;                                                    \
          if constexpr (has_streaming_stores && vector_bytes > 16 && std::is_floating_point<A>::value &&          \
                        Kind == reduction_kind::sum) {                                                            \
            if (past_caches) {                                                                                    \
              store<T, true>(to, result);                                                                         \
              continue;                                                                                           \
            }                                                                                                     \
          }                                                                                                       \
          store<T, false>(to, result);                                                                            \
        }                                                                                                         \
      }                                                                                                           \
      if (past_caches) end_streaming();                                                                           \
      if (at < count) reduce_one_by_one<Kind, T>(inputs, input_count, outputs, output_count, at, count, divisor); \
    }                                                                                                             \
  };

namespace shardkit::detail {

SHARDKIT_REDUCE_KERNEL(baseline_reduce, 16, )
#if defined(__x86_64__)
SHARDKIT_REDUCE_KERNEL(avx2_reduce, 32, SHARDKIT_AVX2)
SHARDKIT_REDUCE_KERNEL(avx512_reduce, 64, SHARDKIT_AVX512)
#endif

}  // namespace shardkit::detail

#undef SHARDKIT_REDUCE_KERNEL
