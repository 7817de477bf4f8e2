// Elements from the type they are stored in to the type the engine computes in.
#pragma once

#include <shardkit/core/dtype.hpp>
#include <shardkit/core/error.hpp>
#include <shardkit/core/float16.hpp>

#include <cstddef>
#include <cstring>
#include <string>
#include <string_view>
#include <type_traits>

namespace shardkit {

/// Some consecutive elements of one tensor on their way from the file into the arena.
struct element_block {
  std::string_view tensor;  ///< its name in the checkpoint
  dtype stored;             ///< type in the file
  dtype wanted;             ///< type in the arena
  std::size_t count;        ///< elements
  const std::byte* from;    ///< count elements of `stored`, at any alignment
  std::byte* to;            ///< room for count elements of `wanted`, at any alignment
};

/// Whether convert_elements can do it: equal types, and any two of f64, f32, f16 and bf16.
constexpr bool is_convertible(dtype stored, dtype wanted) noexcept {
  constexpr auto computes = [](dtype type) { return type <= dtype::bf16; };
  return stored == wanted || (computes(stored) && computes(wanted));
}

namespace detail {

template <class From, class To>
void convert_each(const element_block& block) noexcept {
  for (std::size_t i = 0; i < block.count; ++i) {
    From from;
    std::memcpy(&from, block.from + i * sizeof from, sizeof from);
    To to;
    if constexpr (std::is_same_v<From, double> && !std::is_same_v<To, float>) to = To(static_cast<float>(from));
    else to = To(from);
    std::memcpy(block.to + i * sizeof to, &to, sizeof to);
  }
}

template <class From>
void convert_from(const element_block& block) noexcept {
  switch (block.wanted) {
    case dtype::f64: return convert_each<From, double>(block);
    case dtype::f32: return convert_each<From, float>(block);
    case dtype::f16: return convert_each<From, float16>(block);
    default: return convert_each<From, bfloat16>(block);
  }
}

}  // namespace detail

/// Writes block.to. Widening is exact; narrowing rounds to nearest even, from f64 to 16 bits by way of f32. Booleans
/// become 0 or 1 whatever byte was stored. Throws usage_error where is_convertible says no.
inline void convert_elements(const element_block& block) {
  if (!is_convertible(block.stored, block.wanted))
    throw usage_error("tensor '" + std::string(block.tensor) + "' is stored as " + name_of(block.stored) +
                      " and wanted as " + name_of(block.wanted) + ": ask for " + name_of(block.stored) +
                      ", or pass a transform that converts it");
  if (block.stored == dtype::boolean) {
    for (std::size_t i = 0; i < block.count; ++i) block.to[i] = std::byte(block.from[i] != std::byte(0));
    return;
  }
  if (block.stored == block.wanted) {
    if (block.count != 0) std::memcpy(block.to, block.from, block.count * size_of(block.stored));
    return;
  }
  switch (block.stored) {
    case dtype::f64: return detail::convert_from<double>(block);
    case dtype::f32: return detail::convert_from<float>(block);
    case dtype::f16: return detail::convert_from<float16>(block);
    default: return detail::convert_from<bfloat16>(block);
  }
}

}  // namespace shardkit
