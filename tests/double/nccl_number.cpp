#include <double/nccl_number.hpp>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>

namespace shardkit_double::nccl {

namespace {

// A float of at most 16 bits: sign, exponent, mantissa. The widest exponent stands for infinity and NaN, except in
// e4m3, whose only NaN has all bits set and which has no infinity.
struct small_format {
  int mantissa;
  int lowest_exponent;     // of normal numbers
  std::uint32_t largest;   // bits of the largest finite number
  std::uint32_t infinity;  // 0: there is none
  std::uint32_t not_a_number;
  std::uint32_t sign;
  bool saturates;  // NCCL converts to 8-bit floats with saturation, infinities included
};

constexpr small_format f16{10, -14, 0x7bff, 0x7c00, 0x7e00, 0x8000, false};
constexpr small_format bf16{7, -126, 0x7f7f, 0x7f80, 0x7fc0, 0x8000, false};
constexpr small_format f8e4m3{3, -6, 0x7e, 0, 0x7f, 0x80, true};
constexpr small_format f8e5m2{2, -14, 0x7b, 0x7c, 0x7f, 0x80, true};

float widened(std::uint32_t bits, const small_format& format) {
  const std::uint32_t magnitude = bits & (format.sign - 1);
  const float sign = (bits & format.sign) != 0 ? -1.0F : 1.0F;
  if (magnitude > format.largest) {
    return magnitude == format.infinity ? sign * std::numeric_limits<float>::infinity()
                                        : std::numeric_limits<float>::quiet_NaN();
  }
  const std::uint32_t hidden = 1U << format.mantissa;
  const std::uint32_t exponent = magnitude / hidden;
  const std::uint32_t fraction = magnitude % hidden;
  if (exponent == 0) return sign * std::ldexp(static_cast<float>(fraction), format.lowest_exponent - format.mantissa);
  return sign * std::ldexp(static_cast<float>(hidden + fraction),
                           static_cast<int>(exponent) - 1 + format.lowest_exponent - format.mantissa);
}

std::uint32_t narrowed(float value, const small_format& format) {
  if (std::isnan(value)) return format.not_a_number;
  const std::uint32_t sign = std::signbit(value) ? format.sign : 0;
  const float magnitude = std::fabs(value);
  const std::uint32_t beyond = format.saturates ? format.largest : format.infinity;
  if (std::isinf(magnitude)) return sign | beyond;
  if (magnitude == 0) return sign;
  int exponent = std::ilogb(magnitude);
  if (exponent < format.lowest_exponent) exponent = format.lowest_exponent;
  const auto units = static_cast<std::uint32_t>(std::nearbyint(std::ldexp(magnitude, format.mantissa - exponent)));
  const auto raised = static_cast<std::uint64_t>(exponent - format.lowest_exponent) << format.mantissa;
  const std::uint64_t bits = raised + units;  // a rounding that reaches the next power of two carries by itself
  return sign | (bits > format.largest ? beyond : static_cast<std::uint32_t>(bits));
}

// Element types: how an element is stored, and in what it is accumulated.
template <class T>
struct plain {
  using accumulator = T;
  static constexpr std::size_t bytes = sizeof(T);
  static T load(const std::byte* from) {
    T value;
    std::memcpy(&value, from, sizeof value);
    return value;
  }
  static void store(T value, std::byte* to) { std::memcpy(to, &value, sizeof value); }
};

template <const small_format& Format, class Bits>
struct small {
  using accumulator = float;
  static constexpr std::size_t bytes = sizeof(Bits);
  static float load(const std::byte* from) { return widened(plain<Bits>::load(from), Format); }
  static void store(float value, std::byte* to) { plain<Bits>::store(static_cast<Bits>(narrowed(value, Format)), to); }
};

template <class Visitor>
bool visit(ncclDataType_t type, Visitor&& visitor) {
  switch (type) {
    case ncclInt8: visitor(plain<std::int8_t>{}); return true;
    case ncclUint8: visitor(plain<std::uint8_t>{}); return true;
    case ncclInt32: visitor(plain<std::int32_t>{}); return true;
    case ncclUint32: visitor(plain<std::uint32_t>{}); return true;
    case ncclInt64: visitor(plain<std::int64_t>{}); return true;
    case ncclUint64: visitor(plain<std::uint64_t>{}); return true;
    case ncclFloat16: visitor(small<f16, std::uint16_t>{}); return true;
    case ncclFloat32: visitor(plain<float>{}); return true;
    case ncclFloat64: visitor(plain<double>{}); return true;
    case ncclBfloat16: visitor(small<bf16, std::uint16_t>{}); return true;
    case ncclFloat8e4m3: visitor(small<f8e4m3, std::uint8_t>{}); return true;
    case ncclFloat8e5m2: visitor(small<f8e5m2, std::uint8_t>{}); return true;
    default: return false;
  }
}

// Integers wrap as on the device: they are computed as unsigned, where no overflow is undefined.
template <class T>
std::uint64_t wide(T value) {
  return static_cast<std::uint64_t>(value);
}

template <class T>
T added(T a, T b) {
  if constexpr (std::is_integral_v<T>) return static_cast<T>(wide(a) + wide(b));
  else return a + b;
}

template <class T>
T multiplied(T a, T b) {
  if constexpr (std::is_integral_v<T>) return static_cast<T>(wide(a) * wide(b));
  else return a * b;
}

template <class T>
bool less(T a, T b) {
  if constexpr (std::is_floating_point_v<T>) {
    if (a == 0 && b == 0) return std::signbit(a) && !std::signbit(b);
  }
  return a < b;
}

template <class T>
T smaller(T a, T b) {
  if constexpr (std::is_floating_point_v<T>) {
    if (std::isnan(a)) return b;
    if (std::isnan(b)) return a;
  }
  return less(b, a) ? b : a;
}

template <class T>
T larger(T a, T b) {
  if constexpr (std::is_floating_point_v<T>) {
    if (std::isnan(a)) return b;
    if (std::isnan(b)) return a;
  }
  return less(a, b) ? b : a;
}

template <class Element>
typename Element::accumulator rounded(double value) {
  std::byte stored[8];
  Element::store(static_cast<typename Element::accumulator>(value), stored);
  return Element::load(stored);
}

template <class Element>
void reduce_elements(const reduction& how, const std::vector<const std::byte*>& inputs,
                     const std::vector<std::byte*>& outputs, std::size_t count) {
  using accumulator = typename Element::accumulator;
  constexpr bool integral = std::is_integral_v<accumulator>;
  std::vector<accumulator> factors(inputs.size(), accumulator{1});
  if (how.op == ncclNumOps) {
    for (std::size_t rank = 0; rank < inputs.size(); ++rank) factors[rank] = Element::load(how.scalars[rank].data());
  } else if (how.op == ncclAvg && !integral) {
    factors.assign(inputs.size(), rounded<Element>(1.0 / how.ranks));
  }
  for (std::size_t i = 0; i < count; ++i) {
    const std::size_t at = i * Element::bytes;
    accumulator result = multiplied(Element::load(inputs[0] + at), factors[0]);
    for (std::size_t rank = 1; rank < inputs.size(); ++rank) {
      const accumulator next = multiplied(Element::load(inputs[rank] + at), factors[rank]);
      switch (how.op) {
        case ncclProd: result = multiplied(result, next); break;
        case ncclMin: result = smaller(result, next); break;
        case ncclMax: result = larger(result, next); break;
        default: result = added(result, next);
      }
    }
    if constexpr (integral) {
      if (how.op == ncclAvg) {
        if constexpr (std::is_signed_v<accumulator>) result = static_cast<accumulator>(result / how.ranks);
        else result = static_cast<accumulator>(result / static_cast<unsigned>(how.ranks));
      }
    }
    for (std::byte* output : outputs) Element::store(result, output + at);
  }
}

}  // namespace

std::size_t bytes_of(ncclDataType_t type) {
  std::size_t bytes = 0;
  visit(type, [&](auto element) { bytes = decltype(element)::bytes; });
  return bytes;
}

const char* name_of(ncclDataType_t type) {
  constexpr const char* names[] = {"i8",  "u8",  "i32", "u32",  "i64",    "u64",
                                   "f16", "f32", "f64", "bf16", "f8e4m3", "f8e5m2"};
  return type >= 0 && type < ncclNumTypes ? names[type] : "an unknown type";
}

const char* name_of(ncclRedOp_t op) {
  constexpr const char* names[] = {"sum", "product", "maximum", "minimum", "average"};
  return op >= 0 && op < ncclNumOps ? names[op] : "pre-multiplied sum";
}

void reduce(ncclDataType_t type, const reduction& how, const std::vector<const std::byte*>& inputs,
            const std::vector<std::byte*>& outputs, std::size_t count) {
  visit(type, [&](auto element) { reduce_elements<decltype(element)>(how, inputs, outputs, count); });
}

}  // namespace shardkit_double::nccl
