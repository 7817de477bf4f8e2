// Conversion of stored elements: widening is exact, narrowing rounds to nearest even.
#include "files.hpp"

#include <shardkit/checkpoint/convert.hpp>

#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

using namespace shardkit;

namespace {

template <class From, class To>
std::vector<To> converted(const std::vector<From>& from) {
  // One byte aside, because tensors in a file are aligned to nothing.
  std::vector<std::byte> in(from.size() * sizeof(From) + 1), out(from.size() * sizeof(To) + 1);
  if (!from.empty()) std::memcpy(in.data() + 1, from.data(), from.size() * sizeof(From));
  convert_elements({"t", dtype_of<From>, dtype_of<To>, from.size(), in.data() + 1, out.data() + 1});
  std::vector<To> to(from.size());
  if (!from.empty()) std::memcpy(to.data(), out.data() + 1, from.size() * sizeof(To));
  return to;
}

// The value of a sign, exponent and fraction, from the definition of the format.
double defined_value(unsigned bits, int exponent_bits, int fraction_bits) {
  const int sign = static_cast<int>(bits >> (exponent_bits + fraction_bits)) & 1;
  const int exponent = static_cast<int>(bits >> fraction_bits) & ((1 << exponent_bits) - 1);
  const int fraction = static_cast<int>(bits) & ((1 << fraction_bits) - 1);
  const int bias = (1 << (exponent_bits - 1)) - 1;
  double value = 0;
  if (exponent == (1 << exponent_bits) - 1)
    value = fraction != 0 ? std::numeric_limits<double>::quiet_NaN() : std::numeric_limits<double>::infinity();
  else if (exponent == 0) value = std::ldexp(fraction, 1 - bias - fraction_bits);
  else value = std::ldexp((1 << fraction_bits) + fraction, exponent - bias - fraction_bits);
  return sign != 0 ? -value : value;
}

template <class Small>
void check_widening(int exponent_bits, int fraction_bits) {
  std::vector<Small> all;
  for (unsigned bits = 0; bits < 65536; ++bits) all.push_back(Small::from_bits(static_cast<std::uint16_t>(bits)));
  const auto floats = converted<Small, float>(all);
  const auto doubles = converted<Small, double>(all);
  const auto back = converted<float, Small>(floats);
  int wrong = 0;
  for (unsigned bits = 0; bits < 65536; ++bits) {
    const double value = defined_value(bits, exponent_bits, fraction_bits);
    if (std::isnan(value)) {
      wrong += !std::isnan(floats[bits]) || !std::isnan(doubles[bits]) || !std::isnan(static_cast<float>(back[bits]));
      continue;
    }
    wrong += static_cast<double>(floats[bits]) != value || std::signbit(floats[bits]) != std::signbit(value) ||
             doubles[bits] != value || back[bits].bits != bits;
  }
  CHECK(wrong == 0);
}

// Of all values of the small type, the nearest to `value`; of two equally near, the one with the even last bit.
template <class Small>
void check_rounding(float largest) {
  std::mt19937 random(7);
  std::vector<float> values = {0.0f, -0.0f, 1e-45f, 5.96e-8f, 2.9e-8f, 6.1e-5f};
  for (int i = 0; i < 20'000; ++i) {
    const auto bits = static_cast<std::uint32_t>(random());
    float value = 0;
    std::memcpy(&value, &bits, sizeof value);
    if (std::isfinite(value) && std::fabs(value) < largest) values.push_back(value);
  }
  // Ties: half way between neighbours.
  for (unsigned bits = 0; bits < 0x7000; bits += 37) {
    const auto low = static_cast<double>(static_cast<float>(Small::from_bits(static_cast<std::uint16_t>(bits))));
    const auto high = static_cast<double>(static_cast<float>(Small::from_bits(static_cast<std::uint16_t>(bits + 1))));
    values.push_back(static_cast<float>((low + high) / 2));
  }
  const auto rounded = converted<float, Small>(values);
  int wrong = 0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    const double error =
        std::fabs(static_cast<double>(static_cast<float>(rounded[i])) - static_cast<double>(values[i]));
    for (const int step : {-1, 1}) {
      const auto neighbour = Small::from_bits(static_cast<std::uint16_t>(rounded[i].bits + step));
      const auto other = static_cast<double>(static_cast<float>(neighbour));
      if (!std::isfinite(other)) continue;
      const double distance = std::fabs(other - static_cast<double>(values[i]));
      wrong += distance < error || (distance == error && rounded[i].bits % 2 != 0 && distance != 0);
    }
  }
  CHECK(wrong == 0);
}

}  // namespace

TEST_CASE("every f16 and bf16 value widens exactly and comes back") {
  check_widening<float16>(5, 10);
  check_widening<bfloat16>(8, 7);
}

TEST_CASE("f32 rounds to the nearest f16 and bf16, ties to even") {
  check_rounding<float16>(65504.0f);
  check_rounding<bfloat16>(3e38f);
}

TEST_CASE("f64 and f32 convert as the language does, and f64 to 16 bits by way of f32") {
  const std::vector<double> values = {0.1,         -1e-300, 1e300, 65519.99, std::numeric_limits<double>::infinity(),
                                      1.0 + 0x1p-9};
  const auto floats = converted<double, float>(values);
  const auto halves = converted<double, float16>(values);
  const auto brains = converted<double, bfloat16>(values);
  for (std::size_t i = 0; i < values.size(); ++i) {
    CHECK(floats[i] == static_cast<float>(values[i]));
    CHECK(halves[i].bits == float16(static_cast<float>(values[i])).bits);
    CHECK(brains[i].bits == bfloat16(static_cast<float>(values[i])).bits);
  }
  CHECK(converted<float, double>({0.1f, -3.0f}) == std::vector<double>{static_cast<double>(0.1f), -3.0});
  const auto across = converted<float16, bfloat16>({float16(1.5f), float16(-65504.0f)});
  CHECK(static_cast<float>(across[0]) == 1.5f);
  CHECK(across[1].bits == bfloat16(-65504.0f).bits);
}

TEST_CASE("equal types are copied bit for bit, NaN payloads included") {
  const std::vector<std::uint32_t> bits = {0x7fc00001u, 0xffbfffffu, 0x80000000u, 1u};
  std::vector<float> values(bits.size());
  std::memcpy(values.data(), bits.data(), 16);
  const auto same = converted<float, float>(values);
  CHECK(std::memcmp(same.data(), bits.data(), 16) == 0);
  CHECK(converted<std::int64_t, std::int64_t>({-1, 1LL << 62}) == std::vector<std::int64_t>{-1, 1LL << 62});
  CHECK(converted<float, bfloat16>({}).empty());
}

TEST_CASE("booleans become 0 or 1, whatever byte a file holds") {
  const std::byte stored[] = {std::byte{0}, std::byte{1}, std::byte{2}, std::byte{255}};
  std::byte loaded[4];
  convert_elements({"t", dtype::boolean, dtype::boolean, 4, stored, loaded});
  CHECK(loaded[0] == std::byte{0});
  for (int i = 1; i < 4; ++i) CHECK(loaded[i] == std::byte{1});
}

TEST_CASE("other conversions are refused with both types named") {
  for (int from = 0; from <= static_cast<int>(dtype::boolean); ++from)
    for (int to = 0; to <= static_cast<int>(dtype::boolean); ++to) {
      const auto stored = static_cast<dtype>(from), wanted = static_cast<dtype>(to);
      const bool possible = from == to || (from < 4 && to < 4);
      CHECK(is_convertible(stored, wanted) == possible);
      if (possible) continue;
      const std::string message = files::message_of<usage_error>([&] {
        convert_elements({"name", stored, wanted, 0, nullptr, nullptr});
      });
      CHECK(files::contains(
          message, std::string("tensor 'name' is stored as ") + name_of(stored) + " and wanted as " + name_of(wanted)));
    }
}
