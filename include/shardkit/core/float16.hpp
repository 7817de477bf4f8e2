// 16-bit floating types of the host, bit-compatible with CUDA's __half and __nv_bfloat16: storage types that
// convert to and from float with round-to-nearest-even. Arithmetic happens in float.
#pragma once

#include <cstdint>
#include <cstring>

namespace shardkit {

namespace detail {

inline std::uint32_t bits_of(float value) noexcept {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
}

inline float float_of(std::uint32_t bits) noexcept {
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

/// IEEE 754 binary32 to binary16, nearest even; NaN stays a quiet NaN.
inline std::uint16_t half_bits(float value) noexcept {
  const std::uint32_t bits = bits_of(value);
  const std::uint32_t sign = (bits >> 16) & 0x8000u;
  const std::uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return static_cast<std::uint16_t>(sign | 0x7e00u | ((magnitude >> 13) & 0x03ffu));
  if (magnitude >= 0x477ff000u) return static_cast<std::uint16_t>(sign | 0x7c00u);  // rounds beyond 65504
  if (magnitude < 0x38800000u) {
    // Subnormal half: adding 0.5f leaves the rounded multiple of 2^-24 in the low mantissa bits.
    const std::uint32_t rounded = bits_of(float_of(magnitude) + 0.5f) - bits_of(0.5f);
    return static_cast<std::uint16_t>(sign | rounded);
  }
  const std::uint32_t odd = (magnitude >> 13) & 1u;
  return static_cast<std::uint16_t>(sign | ((magnitude - 0x38000000u + 0x0fffu + odd) >> 13));
}

inline float float_from_half(std::uint16_t half) noexcept {
  const std::uint32_t sign = static_cast<std::uint32_t>(half & 0x8000u) << 16;
  const std::uint32_t magnitude = half & 0x7fffu;
  if (magnitude >= 0x7c00u) return float_of(sign | 0x7f800000u | ((magnitude & 0x03ffu) << 13));
  if (magnitude < 0x0400u) {
    const float subnormal = static_cast<float>(magnitude) * 0x1p-24f;
    return float_of(sign | bits_of(subnormal));
  }
  return float_of(sign | ((magnitude << 13) + 0x38000000u));
}

inline std::uint16_t bfloat_bits(float value) noexcept {
  const std::uint32_t bits = bits_of(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<std::uint16_t>((bits >> 16) | 0x0040u);
  return static_cast<std::uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

}  // namespace detail

/// IEEE 754 binary16.
struct float16 {
  std::uint16_t bits = 0;  ///< sign, 5 of the exponent, 10 of the fraction

  float16() = default;
  explicit float16(float value) noexcept : bits(detail::half_bits(value)) {}
  operator float() const noexcept { return detail::float_from_half(bits); }

  /// The number that these bits stand for.
  static float16 from_bits(std::uint16_t bits) noexcept {
    float16 value;
    value.bits = bits;
    return value;
  }
};

/// The upper half of a binary32.
struct bfloat16 {
  std::uint16_t bits = 0;  ///< sign, 8 of the exponent, 7 of the fraction

  bfloat16() = default;
  explicit bfloat16(float value) noexcept : bits(detail::bfloat_bits(value)) {}
  operator float() const noexcept { return detail::float_of(static_cast<std::uint32_t>(bits) << 16); }

  /// The number that these bits stand for.
  static bfloat16 from_bits(std::uint16_t bits) noexcept {
    bfloat16 value;
    value.bits = bits;
    return value;
  }
};

}  // namespace shardkit
