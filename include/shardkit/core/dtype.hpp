// The element types that travel between ranks, and the map from C++ types to them.
#pragma once

#include <shardkit/core/float16.hpp>

#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace shardkit {

/// Element type of a buffer. The 8-bit floats are stored and moved, not reduced, on the host.
enum class dtype : std::uint8_t { f64, f32, f16, bf16, f8e4m3, f8e5m2, i64, i32, i16, i8, u64, u32, u16, u8, boolean };

/// Bytes of one element.
constexpr std::size_t size_of(dtype type) noexcept {
  switch (type) {
    case dtype::f64:
    case dtype::i64:
    case dtype::u64: return 8;
    case dtype::f32:
    case dtype::i32:
    case dtype::u32: return 4;
    case dtype::f16:
    case dtype::bf16:
    case dtype::i16:
    case dtype::u16: return 2;
    case dtype::f8e4m3:
    case dtype::f8e5m2:
    case dtype::i8:
    case dtype::u8:
    case dtype::boolean: return 1;
  }
  return 0;
}

namespace detail {

inline constexpr const char* dtype_names[] = {"f64", "f32", "f16", "bf16", "f8e4m3", "f8e5m2", "i64",    "i32",
                                              "i16", "i8",  "u64", "u32",  "u16",    "u8",     "boolean"};

}  // namespace detail

/// Short name for messages: "f32", "bf16", "u8".
constexpr const char* name_of(dtype type) noexcept { return detail::dtype_names[static_cast<std::size_t>(type)]; }

/// Whether it is one of the floating types, 8-bit ones included.
constexpr bool is_floating(dtype type) noexcept { return type <= dtype::f8e5m2; }

namespace detail {

template <class T>
constexpr bool is_plain_integer =
    std::is_integral<T>::value && !std::is_same<T, bool>::value && !std::is_same<T, char>::value &&
    !std::is_same<T, wchar_t>::value && !std::is_same<T, char16_t>::value && !std::is_same<T, char32_t>::value;

template <class T>
constexpr dtype integer_dtype() noexcept {
  constexpr bool is_signed = std::is_signed<T>::value;
  switch (sizeof(T)) {
    case 8: return is_signed ? dtype::i64 : dtype::u64;
    case 4: return is_signed ? dtype::i32 : dtype::u32;
    case 2: return is_signed ? dtype::i16 : dtype::u16;
    default: return is_signed ? dtype::i8 : dtype::u8;
  }
}

}  // namespace detail

/// Maps a C++ type to its dtype. Specialise it for an engine's own element type:
///
///     template <> struct shardkit::dtype_traits<my_half> { static constexpr dtype value = dtype::f16; };
template <class T, class Enable = void>
struct dtype_traits {};
template <class T>
struct dtype_traits<T, std::enable_if_t<detail::is_plain_integer<T>>> {
  static constexpr dtype value = detail::integer_dtype<T>();
};
template <>
struct dtype_traits<double> {
  static constexpr dtype value = dtype::f64;
};
template <>
struct dtype_traits<float> {
  static constexpr dtype value = dtype::f32;
};
template <>
struct dtype_traits<float16> {
  static constexpr dtype value = dtype::f16;
};
template <>
struct dtype_traits<bfloat16> {
  static constexpr dtype value = dtype::bf16;
};
template <>
struct dtype_traits<bool> {
  static constexpr dtype value = dtype::boolean;
};
template <>
struct dtype_traits<std::byte> {
  static constexpr dtype value = dtype::u8;
};

namespace detail {

template <class T, class = void>
struct has_dtype : std::false_type {};
template <class T>
struct has_dtype<T, std::void_t<decltype(dtype_traits<T>::value)>> : std::true_type {};

template <class T>
constexpr dtype checked_dtype() noexcept {
  static_assert(has_dtype<T>::value,
                "shardkit: this element type has no dtype; specialise shardkit::dtype_traits for it, or send it as "
                "std::byte");
  if constexpr (has_dtype<T>::value) {
    static_assert(size_of(dtype_traits<T>::value) == sizeof(T), "shardkit: dtype_traits names a dtype of another size");
    return dtype_traits<T>::value;
  } else {
    return dtype::u8;
  }
}

}  // namespace detail

/// The dtype of T; one readable error line where T has none.
template <class T>
inline constexpr dtype dtype_of = detail::checked_dtype<std::remove_cv_t<T>>();

}  // namespace shardkit
