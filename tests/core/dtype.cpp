#include <shardkit/core/dtype.hpp>
#include <shardkit/core/reduction.hpp>

#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <set>
#include <string>
#include <vector>

using shardkit::dtype;
using shardkit::dtype_of;
using shardkit::reduction_kind;

namespace {

// An engine's own half precision type.
struct engine_half {
  std::uint16_t bits;
};
enum class colour { red };

const std::vector<dtype> every_type{dtype::f64,    dtype::f32, dtype::f16, dtype::bf16, dtype::f8e4m3,
                                    dtype::f8e5m2, dtype::i64, dtype::i32, dtype::i16,  dtype::i8,
                                    dtype::u64,    dtype::u32, dtype::u16, dtype::u8,   dtype::boolean};

}  // namespace

template <>
struct shardkit::dtype_traits<engine_half> {
  static constexpr dtype value = dtype::f16;
};

static_assert(dtype_of<double> == dtype::f64 && dtype_of<const float> == dtype::f32);
static_assert(dtype_of<shardkit::float16> == dtype::f16 && dtype_of<shardkit::bfloat16> == dtype::bf16);
static_assert(dtype_of<std::int64_t> == dtype::i64 && dtype_of<std::uint64_t> == dtype::u64);
static_assert(dtype_of<std::int32_t> == dtype::i32 && dtype_of<std::uint32_t> == dtype::u32);
static_assert(dtype_of<std::int16_t> == dtype::i16 && dtype_of<std::uint16_t> == dtype::u16);
static_assert(dtype_of<std::int8_t> == dtype::i8 && dtype_of<std::uint8_t> == dtype::u8);
static_assert(dtype_of<std::byte> == dtype::u8 && dtype_of<bool> == dtype::boolean);
static_assert(dtype_of<long> == (sizeof(long) == 8 ? dtype::i64 : dtype::i32));
static_assert(dtype_of<long long> == dtype::i64 && dtype_of<unsigned long long> == dtype::u64);
static_assert(dtype_of<std::size_t> == (sizeof(std::size_t) == 8 ? dtype::u64 : dtype::u32));
static_assert(dtype_of<engine_half> == dtype::f16);

// Text, enumerations, pointers and classes travel only as what the caller says they are.
static_assert(!shardkit::detail::has_dtype<char>::value && !shardkit::detail::has_dtype<wchar_t>::value);
static_assert(!shardkit::detail::has_dtype<char16_t>::value && !shardkit::detail::has_dtype<char32_t>::value);
static_assert(!shardkit::detail::has_dtype<colour>::value && !shardkit::detail::has_dtype<int*>::value);
static_assert(!shardkit::detail::has_dtype<std::string>::value && !shardkit::detail::has_dtype<long double>::value);

TEST_CASE("The name of a type tells its size, and is its own") {
  std::set<std::string> names;
  for (const dtype type : every_type) {
    const std::string name = name_of(type);
    names.insert(name);
    const std::string digits = type == dtype::boolean ? "8" : name.substr(name.find_first_of("0123456789"));
    CHECK(size_of(type) * 8 == static_cast<std::size_t>(std::atoi(digits.c_str())));
    CHECK(is_floating(type) == (name[0] == 'f' || name == "bf16"));
  }
  CHECK(names.size() == every_type.size());
}

TEST_CASE("What can be reduced how") {
  for (const dtype type : every_type)
    for (int k = 0; k < 8; ++k) {
      const auto kind = static_cast<reduction_kind>(k);
      CAPTURE(name_of(type));
      CAPTURE(name_of(kind));
      const std::string name = name_of(type);
      bool expected;
      if (name.substr(0, 2) == "f8") expected = false;
      else if (kind == reduction_kind::bit_and || kind == reduction_kind::bit_or || kind == reduction_kind::bit_xor)
        expected = name[0] == 'i' || name[0] == 'u' || name == "boolean";
      else if (kind == reduction_kind::minimum || kind == reduction_kind::maximum) expected = true;
      else if (kind == reduction_kind::average) expected = name[0] == 'f' || name == "bf16";
      else expected = name != "boolean";
      CHECK(is_reducible(type, kind) == expected);
      if (expected) CHECK_NOTHROW(require_reducible(type, kind));
      else CHECK_THROWS_AS(require_reducible(type, kind), shardkit::unsupported_error);
    }
  CHECK_THROWS_WITH_AS(shardkit::require_reducible(dtype::i32, reduction_kind::average),
                       doctest::Contains("average of i32 is not defined; averages need a floating type"),
                       shardkit::unsupported_error);
  CHECK(by_rank(shardkit::sum).by_rank);
  CHECK(!shardkit::sum.by_rank);
}
