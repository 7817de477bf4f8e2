// Element types as safetensors files name them. Every type of the format is known by its size, so that each file can
// be checked; those without a counterpart in dtype are refused only where such a tensor is asked for.
#pragma once

#include <shardkit/core/dtype.hpp>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>

namespace shardkit {
namespace detail {

struct stored_dtype_entry {
  std::string_view name;
  unsigned bits;
  dtype equal = dtype::u8;
  bool has_equal = false;

  constexpr stored_dtype_entry(std::string_view its_name, unsigned its_bits) : name(its_name), bits(its_bits) {}
  constexpr stored_dtype_entry(std::string_view its_name, dtype same)
      : name(its_name), bits(8 * static_cast<unsigned>(size_of(same))), equal(same), has_equal(true) {}
};

/// The types that the reference implementation knows, release 0.8.
inline constexpr stored_dtype_entry stored_dtypes[] = {
    // those of dtype, then those known by their bits
    {"BOOL", dtype::boolean},
    {"U8", dtype::u8},
    {"I8", dtype::i8},
    {"I16", dtype::i16},
    {"U16", dtype::u16},
    {"F16", dtype::f16},
    {"BF16", dtype::bf16},
    {"I32", dtype::i32},
    {"U32", dtype::u32},
    {"F32", dtype::f32},
    {"F64", dtype::f64},
    {"I64", dtype::i64},
    {"U64", dtype::u64},
    {"F8_E4M3", dtype::f8e4m3},
    {"F8_E5M2", dtype::f8e5m2},
    {"F4", 4},
    {"F6_E2M3", 6},
    {"F6_E3M2", 6},
    {"F8_E8M0", 8},
    {"F8_E4M3FNUZ", 8},
    {"F8_E5M2FNUZ", 8},
    {"C64", 64}};

}  // namespace detail

/// A type as safetensors names it; some have no dtype.
class stored_dtype {
 public:
  constexpr stored_dtype() noexcept = default;

  /// The type called `name` ("BF16"); nothing where the format has no such type.
  static constexpr std::optional<stored_dtype> from_name(std::string_view name) noexcept {
    for (std::uint8_t i = 0; i < sizeof detail::stored_dtypes / sizeof detail::stored_dtypes[0]; ++i)
      if (detail::stored_dtypes[i].name == name) return stored_dtype(i);
    return std::nullopt;
  }

  /// How the format calls `type`; it has a name for every dtype.
  static constexpr stored_dtype of(dtype type) noexcept {
    std::uint8_t i = 0;
    while (!detail::stored_dtypes[i].has_equal || detail::stored_dtypes[i].equal != type) ++i;
    return stored_dtype(i);
  }

  /// As in the file: "F32", "BF16", "F8_E4M3".
  constexpr std::string_view name() const noexcept { return detail::stored_dtypes[index_].name; }
  /// Bits of one element: 4 and 6 occur beside whole bytes.
  constexpr unsigned bits() const noexcept { return detail::stored_dtypes[index_].bits; }
  /// The same type as a dtype; nothing for complex, sub-byte and rare 8-bit ones.
  constexpr std::optional<dtype> as_dtype() const noexcept {
    if (!detail::stored_dtypes[index_].has_equal) return std::nullopt;
    return detail::stored_dtypes[index_].equal;
  }

 private:
  explicit constexpr stored_dtype(std::uint8_t index) noexcept : index_(index) {}

  std::uint8_t index_ = 0;
};

}  // namespace shardkit
