#include <shardkit/core/float16.hpp>

#include <doctest/doctest.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

using shardkit::bfloat16;
using shardkit::float16;

namespace {

// The 16-bit formats by their definition: sign, `exponent_bits`, and the rest fraction.
struct format {
  int exponent_bits;
  int fraction_bits() const { return 15 - exponent_bits; }
  int bias() const { return (1 << (exponent_bits - 1)) - 1; }
  std::uint32_t infinity() const { return static_cast<std::uint32_t>(((1 << exponent_bits) - 1) << fraction_bits()); }

  // The value of a finite pattern without sign. `infinity()` itself gives the first power of two beyond the largest
  // number, as if the exponent had one more value: the place that rounding to infinity is decided by.
  double value(std::uint32_t magnitude) const {
    const int exponent = static_cast<int>(magnitude >> fraction_bits());
    const double fraction = std::ldexp(magnitude & ((1u << fraction_bits()) - 1), -fraction_bits());
    return exponent == 0 ? std::ldexp(fraction, 1 - bias()) : std::ldexp(1 + fraction, exponent - bias());
  }

  // Nearest even by search: every double between two neighbours goes to the nearer, to the even one in the middle.
  std::uint32_t nearest(double magnitude) const {
    std::uint32_t below = 0, above = infinity();
    if (magnitude >= value(above)) return above;
    while (above - below > 1) {
      const std::uint32_t middle = (below + above) / 2;
      (value(middle) <= magnitude ? below : above) = middle;
    }
    const double to_below = magnitude - value(below), to_above = value(above) - magnitude;
    if (to_below == to_above) return below % 2 == 0 ? below : above;
    return to_below < to_above ? below : above;
  }

  std::uint16_t rounded(float x) const {
    const std::uint32_t sign = std::signbit(x) ? 0x8000u : 0;
    const std::uint32_t magnitude = std::isinf(x) ? infinity() : nearest(std::abs(static_cast<double>(x)));
    return static_cast<std::uint16_t>(sign | magnitude);
  }
};

constexpr format half{5}, brain{8};

template <class T>
void check_every_pattern(const format& as) {
  int wrong = 0;
  for (std::uint32_t bits = 0; bits <= 0xffff; ++bits) {
    const T stored = T::from_bits(static_cast<std::uint16_t>(bits));
    const float read = stored;
    const std::uint32_t magnitude = bits & 0x7fff;
    bool right = std::signbit(read) == (bits >> 15 != 0);
    if (magnitude > as.infinity()) right = right && std::isnan(read);
    else if (magnitude == as.infinity()) right = right && std::isinf(read);
    else right = right && std::abs(static_cast<double>(read)) == as.value(magnitude);
    // Back again: the same bits, but that a signalling NaN becomes the quiet one of the same payload.
    const std::uint32_t quiet = magnitude > as.infinity() ? 1u << (as.fraction_bits() - 1) : 0;
    right = right && T(read).bits == (bits | quiet);
    if (!right && ++wrong < 10) FAIL_CHECK("pattern ", bits);
  }
  CHECK(wrong == 0);
}

// Floats at and around every place where rounding changes, and many others of every exponent.
std::vector<float> rounding_cases(const format& as) {
  std::vector<float> cases;
  for (std::uint32_t magnitude = 0; magnitude < as.infinity(); ++magnitude) {
    const double middle = (as.value(magnitude) + as.value(magnitude + 1)) / 2;
    for (const double place : {as.value(magnitude), middle}) {
      const float x = static_cast<float>(place);  // exact, but where the place lies beyond the largest float
      cases.push_back(x);
      cases.push_back(std::nextafter(x, 0.0f));
      cases.push_back(std::nextafter(x, std::numeric_limits<float>::infinity()));
    }
  }
  for (std::uint64_t bits = 0; bits < 0x7f800000u; bits += 9973)
    cases.push_back(std::bit_cast<float>(static_cast<std::uint32_t>(bits)));
  cases.push_back(std::numeric_limits<float>::max());
  cases.push_back(std::numeric_limits<float>::infinity());
  cases.push_back(std::numeric_limits<float>::denorm_min());
  return cases;
}

template <class T>
void check_rounding(const format& as) {
  int wrong = 0;
  for (const float x : rounding_cases(as))
    for (const float signed_x : {x, -x})
      if (T(signed_x).bits != as.rounded(signed_x) && ++wrong < 10)
        FAIL_CHECK("float bits ", std::bit_cast<std::uint32_t>(signed_x), " gave ", T(signed_x).bits, ", expected ",
                   as.rounded(signed_x));
  CHECK(wrong == 0);
}

template <class T>
void check_nans(const format& as) {
  for (const std::uint32_t bits : {0x7f800001u, 0x7fbfffffu, 0x7fc00000u, 0x7fffffffu, 0xff800001u, 0xffffffffu}) {
    const T stored(std::bit_cast<float>(bits));
    CHECK((stored.bits & 0x7fff) > as.infinity());
    CHECK((stored.bits & 1u << (as.fraction_bits() - 1)) != 0);
    CHECK((stored.bits >> 15) == (bits >> 31));
  }
}

}  // namespace

TEST_CASE("All 65536 patterns of float16 read as they are defined, and come back") {
  check_every_pattern<float16>(half);
}

TEST_CASE("All 65536 patterns of bfloat16 read as they are defined, and come back") {
  check_every_pattern<bfloat16>(brain);
}

TEST_CASE("float16 rounds to nearest even, through subnormals and to infinity") { check_rounding<float16>(half); }

TEST_CASE("bfloat16 rounds to nearest even, through subnormals and to infinity") { check_rounding<bfloat16>(brain); }

TEST_CASE("Every NaN stays a quiet NaN of its sign") {
  check_nans<float16>(half);
  check_nans<bfloat16>(brain);
}

#ifdef __FLT16_MAX__
TEST_CASE("float16 agrees with the compiler's own half precision type") {
  int wrong = 0;
  for (std::uint64_t bits = 0; bits <= 0xffffffffu; bits += 4099) {
    const float x = std::bit_cast<float>(static_cast<std::uint32_t>(bits));
    if (std::isnan(x)) continue;
    const auto theirs = static_cast<_Float16>(x);
    if (float16(x).bits != std::bit_cast<std::uint16_t>(theirs)) ++wrong;
  }
  CHECK(wrong == 0);
}
#endif

TEST_CASE("Default values are zero") {
  CHECK(float16().bits == 0);
  CHECK(bfloat16().bits == 0);
}
