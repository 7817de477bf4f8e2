// Addresses in buffers whose element type is known at run time only, as in the call descriptors.
#pragma once

#include <shardkit/core/dtype.hpp>

#include <cstddef>

namespace shardkit::detail {

inline const char* element_at(const void* base, std::size_t index, dtype type) noexcept {
  return static_cast<const char*>(base) + index * size_of(type);
}
inline char* element_at(void* base, std::size_t index, dtype type) noexcept {
  return static_cast<char*>(base) + index * size_of(type);
}

}  // namespace shardkit::detail
